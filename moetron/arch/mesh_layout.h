// The arithmetic of the rank mesh. World = pp x dp x tp for dense parameters, and
// pp x edp x ep x tpe for experts: the same ranks folded otherwise. Rank order, fastest first:
// tp, dp, pp and tpe, ep, edp, pp, as in Megatron.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

// Derives dp and edp. Throws ConfigError if the sizes do not fit the number of ranks: a line each
// for those of the dense parameters and of the experts.
ParallelSizes parallel_sizes(int64_t world, int64_t tp, int64_t pp, int64_t ep, int64_t tpe);

// Throws ConfigError unless global_batch_size is a multiple of micro_batch_size * dp; returns the
// micro-batches of a step on each rank.
int64_t num_micro_batches(const ParallelSizes& sizes, int64_t micro_batch_size,
                          int64_t global_batch_size);

// Where a rank stands along an axis: 0 .. along(axis) - 1.
int64_t coordinate(const ParallelSizes& sizes, int64_t rank, MeshAxis axis);

// The ranks that differ from `rank` along this axis only, itself included, in order. Dense axes
// hold tp, dp, pp fixed; expert axes hold tpe, ep, edp, pp fixed.
std::vector<int64_t> group_along(const ParallelSizes& sizes, int64_t rank, MeshAxis axis);

// The same for several axes, the first of which is fastest in the result: {kTp, kDp} is a pipeline
// stage, {kTpe, kEp} are the ranks among which a token finds every expert. Dense and expert axes
// cannot be mixed.
std::vector<int64_t> group_of(const ParallelSizes& sizes, int64_t rank,
                              const std::vector<MeshAxis>& axes);

// Whether `rank` of a run is the first of its group along the axes.
bool leads_group(const ParallelSizes& sizes, int64_t rank, const std::vector<MeshAxis>& axes);

// "16 ranks: PP 2 x DP 8 x TP 1; experts PP 2 x EDP 1 x EP 8 x TPE 1"
std::string describe(const ParallelSizes& sizes);

// "groups: TP 0-1 2-3; DP 0,2 1,3; stage 0-3; ...": every group of up to 16 ranks, the groups of
// rank 0 beyond. "0,8..56" are the ranks from 0 to 56 in steps of 8. Axes of one rank are left out;
// a mesh of one rank is "groups: none".
std::string describe_groups(const ParallelSizes& sizes);

}  // namespace moetron
