// Whether ranks that send without buffers can carry out a schedule.
#pragma once

#include "moetron/schedule/schedule.h"

namespace moetron {

// The rule by which messages travel. Between two ranks, each way, outputs and gradients have a
// channel each, in which messages arrive in the order sent. A rank has always posted the receive of
// the next message of each of its channels, and no later one: the first before its first step, the
// next when a step takes one. A send is complete when its receive is posted. A step begins when the
// messages it needs have come and all that the rank sent before is complete.
//
// Whoever executes a list posts receives so, and may let a step begin before the sends are
// complete, as long as it keeps what they send.
//
// The messages of each channel are sent and received in the same order (validate_schedule() checks
// that first). Throws InternalError naming a rank and its step if ranks wait for each other for
// good.
void check_unbuffered_sends(const Schedule& schedule);

}  // namespace moetron
