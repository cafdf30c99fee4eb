// The arithmetic of the rank mesh. World = pp x dp x tp for dense parameters, and
// pp x edp x ep x tpe for experts: the same ranks folded otherwise. Rank order, fastest first:
// tp, dp, pp and tpe, ep, edp, pp, as in Megatron.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moetron/arch/model_config.h"

namespace moetron {

enum class MeshAxis { kTp, kDp, kPp, kTpe, kEp, kEdp };

// Ranks along each axis; made by parallel_sizes().
struct ParallelSizes {
  int64_t world = 1;
  int64_t tp = 1;
  int64_t dp = 1;
  int64_t pp = 1;
  int64_t tpe = 1;
  int64_t ep = 1;
  int64_t edp = 1;

  int64_t along(MeshAxis axis) const;
};

// Derives dp and edp. Throws ConfigError if the sizes do not fit the number of ranks.
ParallelSizes parallel_sizes(int64_t world, int64_t tp, int64_t pp, int64_t ep, int64_t tpe);

// Throws ConfigError if the model cannot be divided so.
void check_layout(const ParallelSizes& sizes, const ModelConfig& config);

// Throws ConfigError unless global_batch_size is a multiple of micro_batch_size * dp; returns the
// micro-batches of a step on each rank.
int64_t num_micro_batches(const ParallelSizes& sizes, int64_t micro_batch_size,
                          int64_t global_batch_size);

// Where a rank stands along an axis: 0 .. along(axis) - 1.
int64_t coordinate(const ParallelSizes& sizes, int64_t rank, MeshAxis axis);

// The ranks that differ from `rank` along this axis only, itself included, in order. Dense axes
// hold tp, dp, pp fixed; expert axes hold tpe, ep, edp, pp fixed.
std::vector<int64_t> group_along(const ParallelSizes& sizes, int64_t rank, MeshAxis axis);

// "16 ranks: PP 2 x DP 8 x TP 1; experts PP 2 x EDP 1 x EP 8 x TPE 1"
std::string describe(const ParallelSizes& sizes);

}  // namespace moetron
