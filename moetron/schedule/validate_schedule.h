// Proves a schedule: whatever executes its lists in order trains every stage with every
// micro-batch once, in the same order of weight gradients, and ends.
#pragma once

#include "moetron/schedule/schedule.h"

namespace moetron {

// Throws InternalError naming rank and action where
//  - an F, I, W or half of a W is missing, doubled or unknown, or comes before what it needs on its
//    rank;
//  - two actions are beside each other that cannot be (Step says which can);
//  - the weight gradients of a chunk are not in the order of micro-batches, which alone gives every
//    schedule the same bits;
//  - a chunk is not reduced once, with or right behind its last weight gradient;
//  - two ranks do not send and receive outputs, or gradients, in the same order (with a channel for
//    each of the two, messages need no tags);
//  - the ranks wait for each other for good, sending without buffers (unbuffered_sends.h);
//  - a rank holds other than its declared peak.
// Of a forward schedule the same as far as it goes; it declares no peak.
void validate_schedule(const Schedule& schedule);

}  // namespace moetron
