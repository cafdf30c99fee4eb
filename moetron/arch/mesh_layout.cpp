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

void check_attention(const ParallelSizes& sizes, const ModelConfig& config, bool replicates_down) {
  check_divides("tensor-model-parallel-size", sizes.tp, "num-attention-heads",
                config.num_attention_heads);
  if (!config.mla) {
    const int64_t groups = config.num_key_value_heads;
    MT_CHECK_CONFIG(groups % sizes.tp == 0 || sizes.tp % groups == 0,
                    "tensor-model-parallel-size (", sizes.tp, ") must divide num-query-groups (",
                    groups, ") or be a multiple of it");
    return;
  }
  if (replicates_down) return;
  const MlaConfig& mla = *config.mla;
  check_divides("tensor-model-parallel-size", sizes.tp, "q-lora-rank", mla.q_lora_rank);
  MT_CHECK_CONFIG((mla.kv_lora_rank + mla.qk_rope_head_dim) % sizes.tp == 0,
                  "tensor-model-parallel-size (", sizes.tp, ") must divide kv-lora-rank (",
                  mla.kv_lora_rank, ") plus qk-rope-head-dim (", mla.qk_rope_head_dim,
                  ") without mla-replicate-l1");
}

void check_experts(const ParallelSizes& sizes, const MoeConfig& moe) {
  check_divides("expert-model-parallel-size", sizes.ep, "num-experts", moe.num_experts);
  check_divides("tensor-model-parallel-for-expert", sizes.tpe, "moe-ffn-hidden-size",
                moe.expert_intermediate_size);
  MT_CHECK_CONFIG(moe.shared_intermediate_size % sizes.tp == 0, "tensor-model-parallel-size (",
                  sizes.tp, ") must divide num-shared-experts (", moe.num_shared_experts,
                  ") times moe-ffn-hidden-size (", moe.expert_intermediate_size, ")");
}

// Every group of the mesh is an arithmetic progression: "3", "0-3", "0,2", "0,8..56".
std::string range_text(const std::vector<int64_t>& ranks) {
  const int64_t first = ranks.front();
  const int64_t last = ranks.back();
  if (ranks.size() == 1) return std::to_string(first);
  const int64_t step = ranks[1] - first;
  if (step == 1) return concat(first, "-", last);
  std::string text = std::to_string(first);
  if (ranks.size() > 8) return concat(text, ",", ranks[1], "..", last);
  for (size_t i = 1; i < ranks.size(); ++i) text += concat(",", ranks[i]);
  return text;
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

void check_layout(const ParallelSizes& sizes, const ModelConfig& config, bool mla_replicate_l1) {
  check_attention(sizes, config, mla_replicate_l1);
  if (config.num_moe_layers() < config.num_layers)
    check_divides("tensor-model-parallel-size", sizes.tp, "ffn-hidden-size",
                  config.intermediate_size);
  if (config.num_moe_layers() > 0) {
    check_experts(sizes, *config.moe);
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

std::vector<int64_t> group_of(const ParallelSizes& sizes, int64_t rank,
                              const std::vector<MeshAxis>& axes) {
  bool is_dense = false;
  bool is_expert = false;
  std::vector<int64_t> ranks{rank};
  for (const MeshAxis axis : axes) {
    is_dense |= axis == MeshAxis::kTp || axis == MeshAxis::kDp;
    is_expert |= axis == MeshAxis::kTpe || axis == MeshAxis::kEp || axis == MeshAxis::kEdp;
    // The ranks so far, moved along this axis to each of its places.
    const std::vector<int64_t> line = group_along(sizes, ranks.front(), axis);
    std::vector<int64_t> block;
    for (const int64_t next : line)
      for (const int64_t old : ranks) block.push_back(old + next - ranks.front());
    ranks = std::move(block);
  }
  MT_CHECK(!(is_dense && is_expert), "a group along dense and expert axes at once");
  return ranks;
}

bool leads_group(const ParallelSizes& sizes, int64_t rank, const std::vector<MeshAxis>& axes) {
  for (const MeshAxis axis : axes)
    if (coordinate(sizes, rank, axis) != 0) return false;
  return true;
}

std::string describe_groups(const ParallelSizes& sizes) {
  struct Named {
    const char* name;
    std::vector<MeshAxis> axes;
  };
  const Named all[] = {{"TP", {MeshAxis::kTp}},
                       {"DP", {MeshAxis::kDp}},
                       {"stage", {MeshAxis::kTp, MeshAxis::kDp}},
                       {"PP", {MeshAxis::kPp}},
                       {"TPE", {MeshAxis::kTpe}},
                       {"EP", {MeshAxis::kEp}},
                       {"EP x TPE", {MeshAxis::kTpe, MeshAxis::kEp}},
                       {"EDP", {MeshAxis::kEdp}}};
  constexpr int64_t kMaxListed = 16;
  std::string text;
  for (const auto& [name, axes] : all) {
    std::string groups;
    for (int64_t rank = 0; rank < (sizes.world <= kMaxListed ? sizes.world : 1); ++rank) {
      const std::vector<int64_t> ranks = group_of(sizes, rank, axes);
      if (ranks.size() > 1 && leads_group(sizes, rank, axes)) groups += " " + range_text(ranks);
    }
    if (!groups.empty()) text += concat(text.empty() ? "" : "; ", name, groups);
  }
  if (text.empty()) return "groups: none";
  return (sizes.world <= kMaxListed ? "groups: " : "groups of rank 0: ") + text;
}

std::string describe(const ParallelSizes& sizes) {
  return concat(sizes.world, sizes.world == 1 ? " rank" : " ranks", ": PP ", sizes.pp, " x DP ",
                sizes.dp, " x TP ", sizes.tp, "; experts PP ", sizes.pp, " x EDP ", sizes.edp,
                " x EP ", sizes.ep, " x TPE ", sizes.tpe);
}

}  // namespace moetron
