#include "layout_cases.h"

#include <array>
#include <set>
#include <tuple>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// The value of every setting of a case, as a number.
enum Setting {
  kModel,
  kWorld,
  kTp,
  kEp,
  kTpe,
  kDispatcher,
  kRecompute,
  kProduct,
  kMla,
  kOptimizer,
  kDrop,
  kNumSettings
};
constexpr int kFirstFree = kDispatcher;  // those before it are the row's own
constexpr std::array<int64_t, kNumSettings> kNumValues = {2, 0, 0, 0, 0, 4, 5, 2, 4, 4, 3};

using Values = std::array<int64_t, kNumSettings>;
using Pair = std::tuple<int, int64_t, int, int64_t>;

std::vector<Values> rows() {
  std::vector<Values> all;
  for (const int64_t model : {0, 1})
    for (const int64_t world : {2, 4, 8})
      for (int64_t tp = 1; tp <= world; tp *= 2)
        for (int64_t ep = 1; ep <= world; ep *= 2)
          for (int64_t tpe = 1; ep * tpe <= world; tpe *= 2)
            all.push_back({model, world, tp, ep, tpe, 0, 0, 0, 0, 0, 0});
  return all;
}

// All settings of a row; Qwen has no latent attention to set.
std::vector<Values> choices(const Values& row) {
  std::vector<Values> all = {row};
  for (int setting = kFirstFree; setting < kNumSettings; ++setting) {
    const int64_t count = setting == kMla && row[kModel] == 1 ? 1 : kNumValues[setting];
    std::vector<Values> longer;
    for (const Values& values : all) {
      for (int64_t value = 0; value < count; ++value) {
        longer.push_back(values);
        longer.back()[setting] = value;
      }
    }
    all = std::move(longer);
  }
  return all;
}

template <class Visit>
void for_each_pair(const Values& values, Visit visit) {
  for (int a = 0; a < kNumSettings; ++a) {
    for (int b = a + 1; b < kNumSettings; ++b) visit(Pair{a, values[a], b, values[b]});
  }
}

Values chosen_for(const Values& row, std::set<Pair>& met) {
  Values best = row;
  int best_new = -1;
  for (const Values& values : choices(row)) {
    int num_new = 0;
    for_each_pair(values, [&](const Pair& pair) { num_new += met.count(pair) == 0 ? 1 : 0; });
    if (num_new > best_new) {
      best_new = num_new;
      best = values;
    }
  }
  for_each_pair(best, [&](const Pair& pair) { met.insert(pair); });
  return best;
}

void set_drop(Drop drop, ModelSettings& model) {
  if (drop == Drop::kNone) return;
  model.capacity_factor = drop == Drop::kProbsPadded ? 1.0 : 1.25;
  model.pad_to_capacity = drop == Drop::kProbsPadded;
  model.drop_policy =
      drop == Drop::kProbsPadded ? TokenDropPolicy::kProbs : TokenDropPolicy::kPosition;
}

MatrixCase to_case(const Values& v) {
  using Kind = RecomputeSettings::Kind;
  MatrixCase made;
  made.is_deepseek = v[kModel] == 0;
  made.drop = static_cast<Drop>(v[kDrop]);
  LayoutCase& layout = made.layout;
  layout.world = v[kWorld];
  layout.tp = v[kTp];
  layout.ep = v[kEp];
  layout.tpe = v[kTpe];
  layout.model.dispatcher = static_cast<TokenDispatcher>(v[kDispatcher]);
  layout.model.mlp_recompute = v[kRecompute] == 1;
  if (v[kRecompute] == 2) layout.model.recompute = {Kind::kMoeLayer};
  if (v[kRecompute] >= 3) layout.model.recompute = {Kind::kFull, v[kRecompute] - 2};
  layout.model.grouped_gemm = v[kProduct] == 0;
  layout.model.mla_replicate_l1 = v[kMla] % 2 == 1;
  layout.model.mla_fuse_qkv = v[kMla] >= 2;
  layout.buckets.overlap_reduce = v[kOptimizer] % 2 == 1;
  layout.buckets.distributed = v[kOptimizer] >= 2;
  layout.buckets.overlap_gather = v[kOptimizer] == 3;
  layout.buckets.bucket_elements = 3000;  // several buckets
  set_drop(made.drop, layout.model);
  return made;
}

Values to_values(const MatrixCase& c) {
  using Kind = RecomputeSettings::Kind;
  const ModelSettings& m = c.layout.model;
  const BucketSettings& b = c.layout.buckets;
  int64_t recompute = m.mlp_recompute ? 1 : 0;
  if (m.recompute.kind == Kind::kMoeLayer) recompute = 2;
  if (m.recompute.kind == Kind::kFull) recompute = 2 + m.recompute.num_layers;
  return {c.is_deepseek ? 0 : 1,
          c.layout.world,
          c.layout.tp,
          c.layout.ep,
          c.layout.tpe,
          static_cast<int64_t>(m.dispatcher),
          recompute,
          m.grouped_gemm ? 0 : 1,
          (m.mla_replicate_l1 ? 1 : 0) + (m.mla_fuse_qkv ? 2 : 0),
          (b.overlap_reduce ? 1 : 0) + (b.distributed ? 2 : 0),
          static_cast<int64_t>(c.drop)};
}

}  // namespace

LayoutCase single_rank(Drop drop) {
  LayoutCase layout;
  set_drop(drop, layout.model);
  return layout;
}

std::vector<MatrixCase> layout_matrix() {
  std::set<Pair> met;
  std::vector<MatrixCase> cases;
  for (const Values& row : rows()) cases.push_back(to_case(chosen_for(row, met)));
  return cases;
}

std::vector<std::string> missing_pairs(const std::vector<MatrixCase>& cases) {
  std::set<Pair> missing;
  for (const Values& row : rows()) {
    for (const Values& values : choices(row)) {
      for_each_pair(values, [&](const Pair& pair) { missing.insert(pair); });
    }
  }
  for (const MatrixCase& c : cases) {
    for_each_pair(to_values(c), [&](const Pair& pair) { missing.erase(pair); });
  }
  std::vector<std::string> texts;
  for (const auto& [a, value_a, b, value_b] : missing) {
    texts.push_back(concat("setting ", a, " = ", value_a, " with setting ", b, " = ", value_b));
  }
  return texts;
}

}  // namespace moetron
