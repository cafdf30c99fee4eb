// A run made small: the same kinds of layers and the same way of dividing them, in sizes that one
// processor trains in seconds. For --check-layout.
#pragma once

#include <cstdint>
#include <string>

#include "moetron/run/run_spec.h"

namespace moetron {

inline constexpr int64_t kMostCheckedRanks = 64;
inline constexpr int64_t kCheckedVocabulary = 61;  // odd: ranks that divide it hold padding

// Layouts: as asked up to kMostCheckedRanks ranks; beyond, fewer copies along DP, then fewer ranks
// along PP, then along EP and TPE, and TP, at least two of each where there were more. Schedule,
// dispatcher, recomputation, capacity and optimizer stay, in fp32; products in 8 bits are left out.
// Of every stage the first dense layer and the first with experts stay (two of each where
// recomputation spans several layers). Widths, heads, experts and groups keep what the layout
// divides, and at least two a rank where there were more; micro-batches are as few as fill the
// pipeline. Adam's epsilon is one beside which gradients follow their sizes, not their signs.
RunSpec shrink_run(const RunSpec& run);

// The same model and batch in the layouts that the shrunk run is compared with. On the ranks of one
// stage, without a pipeline, micro-batches in order, nothing recomputed or overlapped: the same
// bits (DESIGN, "Same bits").
RunSpec without_pipeline(const RunSpec& shrunk);
// On one rank: the same numbers but for rounding.
RunSpec on_one_rank(const RunSpec& shrunk);

// "tp 2, ep 8, pp 16": the axes with more than one rank; "one rank" without any.
std::string describe_axes(const ParallelSizes& sizes);

}  // namespace moetron
