#include "moetron/arch/mesh_layout.h"

#include "moetron/base/error.h"

namespace moetron {
namespace {

// How far apart two neighbours along the axis are in rank order.
int64_t stride(const ParallelSizes& sizes, MeshAxis axis) {
  switch (axis) {
    case MeshAxis::kTp:
    case MeshAxis::kTpe:
      return 1;
    case MeshAxis::kDp:
      return sizes.tp;
    case MeshAxis::kEp:
      return sizes.tpe;
    case MeshAxis::kEdp:
      return sizes.tpe * sizes.ep;
    case MeshAxis::kPp:
      return sizes.world / sizes.pp;
  }
  throw InternalError("unknown mesh axis");
}

void check_positive(int64_t value, const char* name) {
  MT_CHECK_CONFIG(value >= 1, name, " (", value, ") must be at least 1");
}

void check_divides(const char* divisor_name, int64_t divisor, const char* name, int64_t value) {
  MT_CHECK_CONFIG(value % divisor == 0, divisor_name, " (", divisor, ") must divide ", name, " (",
                  value, ")");
}

// The product, or ConfigError if it exceeds what a mesh can hold.
int64_t checked_product(int64_t left, int64_t right, int64_t world) {
  MT_CHECK_CONFIG(left <= world && right <= world / left, "the parallel sizes ", left, " and ",
                  right, " multiply to more than the number of ranks (", world, ")");
  return left * right;
}

}  // namespace

int64_t ParallelSizes::along(MeshAxis axis) const {
  switch (axis) {
    case MeshAxis::kTp:
      return tp;
    case MeshAxis::kDp:
      return dp;
    case MeshAxis::kPp:
      return pp;
    case MeshAxis::kTpe:
      return tpe;
    case MeshAxis::kEp:
      return ep;
    case MeshAxis::kEdp:
      return edp;
  }
  throw InternalError("unknown mesh axis");
}

ParallelSizes parallel_sizes(int64_t world, int64_t tp, int64_t pp, int64_t ep, int64_t tpe) {
  check_positive(world, "the number of ranks");
  check_positive(tp, "tensor-model-parallel-size");
  check_positive(pp, "pipeline-model-parallel-size");
  check_positive(ep, "expert-model-parallel-size");
  check_positive(tpe, "tensor-model-parallel-for-expert");
  const int64_t dense = checked_product(tp, pp, world);
  const int64_t expert = checked_product(checked_product(ep, tpe, world), pp, world);
  MT_CHECK_CONFIG(world % dense == 0, "tensor-model-parallel-size (", tp,
                  ") times pipeline-model-parallel-size (", pp,
                  ") must divide the number of ranks (", world, ")");
  MT_CHECK_CONFIG(world % expert == 0, "expert-model-parallel-size (", ep,
                  ") times tensor-model-parallel-for-expert (", tpe,
                  ") times pipeline-model-parallel-size (", pp,
                  ") must divide the number of ranks (", world, ")");
  return {world, tp, world / dense, pp, tpe, ep, world / expert};
}

void check_layout(const ParallelSizes& sizes, const ModelConfig& config) {
  check_divides("tensor-model-parallel-size", sizes.tp, "num-attention-heads",
                config.num_attention_heads);
  if (!config.mla)
    check_divides("tensor-model-parallel-size", sizes.tp, "num-query-groups",
                  config.num_key_value_heads);
  check_divides("tensor-model-parallel-size", sizes.tp, "ffn-hidden-size",
                config.intermediate_size);
  MT_CHECK_CONFIG(sizes.pp <= config.num_layers, "pipeline-model-parallel-size (", sizes.pp,
                  ") must not exceed num-layers (", config.num_layers, ")");
  if (config.moe) {
    check_divides("expert-model-parallel-size", sizes.ep, "num-experts", config.moe->num_experts);
    check_divides("tensor-model-parallel-for-expert", sizes.tpe, "moe-ffn-hidden-size",
                  config.moe->expert_intermediate_size);
  } else {
    MT_CHECK_CONFIG(sizes.ep == 1 && sizes.tpe == 1, "expert-model-parallel-size (", sizes.ep,
                    ") and tensor-model-parallel-for-expert (", sizes.tpe,
                    ") must be 1 for a model without experts");
  }
}

int64_t num_micro_batches(const ParallelSizes& sizes, int64_t micro_batch_size,
                          int64_t global_batch_size) {
  check_positive(micro_batch_size, "micro-batch-size");
  check_positive(global_batch_size, "global-batch-size");
  MT_CHECK_CONFIG(global_batch_size % micro_batch_size == 0 &&
                      global_batch_size / micro_batch_size % sizes.dp == 0,
                  "micro-batch-size (", micro_batch_size, ") times data-parallel size (", sizes.dp,
                  ") must divide global-batch-size (", global_batch_size, ")");
  return global_batch_size / micro_batch_size / sizes.dp;
}

int64_t coordinate(const ParallelSizes& sizes, int64_t rank, MeshAxis axis) {
  MT_CHECK(rank >= 0 && rank < sizes.world, "rank ", rank, " of ", sizes.world);
  return rank / stride(sizes, axis) % sizes.along(axis);
}

std::vector<int64_t> group_along(const ParallelSizes& sizes, int64_t rank, MeshAxis axis) {
  const int64_t step = stride(sizes, axis);
  const int64_t first = rank - coordinate(sizes, rank, axis) * step;
  std::vector<int64_t> ranks;
  for (int64_t i = 0; i < sizes.along(axis); ++i) ranks.push_back(first + i * step);
  return ranks;
}

std::string describe(const ParallelSizes& sizes) {
  return concat(sizes.world, sizes.world == 1 ? " rank" : " ranks", ": PP ", sizes.pp, " x DP ",
                sizes.dp, " x TP ", sizes.tp, "; experts PP ", sizes.pp, " x EDP ", sizes.edp,
                " x EP ", sizes.ep, " x TPE ", sizes.tpe);
}

}  // namespace moetron
