#include "moetron/arch/mesh_layout.h"

#include "moetron/base/mistakes.h"

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

// Whether the factors multiply to a divisor of `world`.
bool fits(int64_t world, std::initializer_list<int64_t> factors) {
  for (const int64_t factor : factors) {
    if (world % factor != 0) return false;
    world /= factor;
  }
  return true;
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
  Mistakes mistakes;
  mistakes.check(fits(world, {tp, pp}), "the number of ranks (", world,
                 ") must be a multiple of tensor-model-parallel-size (", tp,
                 ") times pipeline-model-parallel-size (", pp, ")");
  // Where the pipeline alone does not fit, that is said once.
  mistakes.check(fits(world, {ep, tpe, pp}) || !fits(world, {pp}), "the number of ranks (", world,
                 ") must be a multiple of expert-model-parallel-size (", ep,
                 ") times tensor-model-parallel-for-expert (", tpe,
                 ") times pipeline-model-parallel-size (", pp, ")");
  mistakes.throw_if_any();
  return {world, tp, world / tp / pp, pp, tpe, ep, world / ep / tpe / pp};
}

int64_t num_micro_batches(const ParallelSizes& sizes, int64_t micro_batch_size,
                          int64_t global_batch_size) {
  check_positive(micro_batch_size, "micro-batch-size");
  check_positive(global_batch_size, "global-batch-size");
  MT_CHECK_CONFIG(global_batch_size % micro_batch_size == 0 &&
                      global_batch_size / micro_batch_size % sizes.dp == 0,
                  "global-batch-size (", global_batch_size,
                  ") must be a multiple of micro-batch-size (", micro_batch_size,
                  ") times the data-parallel ranks (", sizes.dp, ")");
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
