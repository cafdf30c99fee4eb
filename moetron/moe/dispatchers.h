// The token dispatchers: how a layer's tokens reach the ranks that hold their experts, and how the
// weighted results come back. docs/parallelism.md compares their volumes.
#pragma once

#include <cstdint>
#include <memory>

#include "moetron/config/choices.h"
#include "moetron/kernels/operators.h"
#include "moetron/moe/expert_layout.h"
#include "moetron/pipeline/dispatch.h"

namespace moetron {

// kAllGather, kAllGatherFused: every token to every rank (Megatron's allgather dispatcher).
// kAllToAll: a row for each chosen expert (GShard, arXiv 2006.16668). kDeepep: a row for each rank
// that holds a chosen expert, whose weighted partial sums travel back, as DeepEP moves them. The
// overlap kinds are the same algorithms. Where one rank holds every expert each kind is the same
// local permutation.
struct DispatcherSettings {
  TokenDispatcher kind = TokenDispatcher::kAllGatherFused;
  ExpertLayout layout;
  int64_t max_tokens = 0;                     // that a rank brings for a micro-batch; 0: any number
  int64_t rows_at_least = 0;                  // of each local expert
  int64_t alignment = 1;                      // each expert's rows begin at a multiple of it
  Operators operators = Operators::kFastest;  // that sort, copy and sum rows
};

// For all layers of a rank. All ranks of the group bring equally many tokens.
std::unique_ptr<Dispatcher> make_dispatcher(const DispatcherSettings& settings);

}  // namespace moetron
