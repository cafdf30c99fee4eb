// DualPipeV with less memory: lists of a V in which the expert communication of an F or I of its
// own hides behind weight gradients of earlier micro-batches, while there are enough of them. F and
// I then need not go in pairs, each waits for its neighbours alone, and fewer micro-batches are on
// their way. Where communication takes longer than the W's, the pairs of DualPipeV hide it.
#pragma once

#include "moetron/schedule/schedule.h"

namespace moetron {

// Of the kind kDualPipeVPlus, for any number of micro-batches. Without a cap: a list that holds as
// little as can be for at most 1.5 % more time than DualPipeV, or DualPipeV's list, the
// last rank's first pair a block too, where communication exceeds the W's (2 communication > 1).
// With a cap: the fastest list found that holds no more. The same on every rank, for it depends on
// the request alone; takes up to a second. make_schedule() has checked the numbers. Throws
// ConfigError naming pipeline-activation-cap if no list stays under it.
Schedule make_dualpipev_plus(const ScheduleRequest& request);

}  // namespace moetron
