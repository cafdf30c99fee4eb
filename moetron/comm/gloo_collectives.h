// The collectives over a GlooLink: who sends which bytes to whom, and the reductions in rank order.
#pragma once

#include "moetron/comm/gloo_link.h"
#include "moetron/comm/operation.h"

namespace moetron {

// Runs one collective to its end. Throws TransferError.
void run_collective(GlooLink& link, const Operation& operation);

}  // namespace moetron
