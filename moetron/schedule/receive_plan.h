// When a rank begins to receive each of its messages.
#pragma once

#include <vector>

#include "moetron/schedule/message.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

// By rank and step: the messages from other ranks whose receiving begins before the step, in the
// order of each sender's sending.
//
// A receive (and a send, on NCCL) is a kernel that runs until its other end is there, and loading
// another kernel, or giving memory back, waits for all that run. So nothing may be begun whose end
// depends on what its rank does later. The times of the simulation in units are a clock that agrees
// with all dependencies: a receive begins before the first step that begins no earlier than the
// message was sent. What is under way when a rank's step begins then ends without that step, and a
// sender need not wait for a rank that waits for the sender.
using ReceivePlan = std::vector<std::vector<std::vector<Message>>>;
ReceivePlan make_receive_plan(const Schedule& schedule);

}  // namespace moetron
