#include "layout_cases.h"

#include <array>

#include "pairwise.h"

namespace moetron {
namespace {

// The settings of a case.
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
  kFilling,
  kNumSettings
};
constexpr int kFirstFree = kDispatcher;  // those before it are the row's own
constexpr std::array<int64_t, kNumSettings> kNumValues = {2, 0, 0, 0, 0, num_plain_dispatchers(),
                                                          5, 2, 4, 4, 3, 2};

std::vector<SettingValues> rows() {
  std::vector<SettingValues> all;
  for (const int64_t model : {0, 1})
    for (const int64_t world : {2, 4, 8})
      for (int64_t tp = 1; tp <= world; tp *= 2)
        for (int64_t ep = 1; ep <= world; ep *= 2)
          for (int64_t tpe = 1; ep * tpe <= world; tpe *= 2)
            all.push_back({model, world, tp, ep, tpe, 0, 0, 0, 0, 0, 0, 0});
  return all;
}

// All settings of a row; Qwen has no latent attention to set.
std::vector<SettingValues> choices(const SettingValues& row) {
  std::vector<SettingValues> all = {row};
  for (int setting = kFirstFree; setting < kNumSettings; ++setting) {
    const int64_t count = setting == kMla && row[kModel] == 1 ? 1 : kNumValues[setting];
    std::vector<SettingValues> longer;
    for (const SettingValues& values : all) {
      for (int64_t value = 0; value < count; ++value) {
        longer.push_back(values);
        longer.back()[setting] = value;
      }
    }
    all = std::move(longer);
  }
  return all;
}

PairSet possible_pairs() {
  PairSet pairs;
  for (const SettingValues& row : rows()) {
    for (const SettingValues& values : choices(row)) pairs.insert(values);
  }
  return pairs;
}

SettingValues chosen_for(const SettingValues& row, PairSet& missing) {
  SettingValues best = row;
  int best_new = -1;
  for (const SettingValues& values : choices(row)) {
    const int num_new = missing.count(values);
    if (num_new > best_new) {
      best_new = num_new;
      best = values;
    }
  }
  missing.erase(best);
  return best;
}

void set_drop(Drop drop, ModelSettings& model) {
  if (drop == Drop::kNone) return;
  model.experts.capacity_factor = drop == Drop::kProbsPadded ? 1.0 : 1.25;
  model.experts.pad_to_capacity = drop == Drop::kProbsPadded;
  model.experts.drop_policy =
      drop == Drop::kProbsPadded ? TokenDropPolicy::kProbs : TokenDropPolicy::kPosition;
}

MatrixCase to_case(const SettingValues& v) {
  MatrixCase made;
  made.is_deepseek = v[kModel] == 0;
  made.drop = static_cast<Drop>(v[kDrop]);
  made.filling = static_cast<Filling>(v[kFilling]);
  LayoutCase& layout = made.layout;
  layout.world = v[kWorld];
  layout.tp = v[kTp];
  layout.ep = v[kEp];
  layout.tpe = v[kTpe];
  layout.model.experts.dispatcher = plain_dispatcher(v[kDispatcher]);
  layout.model.recompute = recompute_of(v[kRecompute]);
  layout.model.experts.grouped_gemm = v[kProduct] == 0;
  layout.model.latent_attention.replicate_down = v[kMla] % 2 == 1;
  layout.model.latent_attention.fuse_down = layout.model.latent_attention.recompute_norms =
      v[kMla] >= 2;
  layout.buckets.overlap_reduce = v[kOptimizer] % 2 == 1;
  layout.buckets.distributed = v[kOptimizer] >= 2;
  layout.buckets.overlap_gather = v[kOptimizer] == 3;
  layout.buckets.bucket_elements = 3000;  // several buckets
  set_drop(made.drop, layout.model);
  return made;
}

SettingValues to_values(const MatrixCase& c) {
  const ModelSettings& m = c.layout.model;
  const BucketSettings& b = c.layout.buckets;
  int64_t recompute = m.recompute.kind == Recompute::kExpertProduct ? 1 : 0;
  if (m.recompute.kind == Recompute::kMoeLayer) recompute = 2;
  if (m.recompute.kind == Recompute::kLayer) recompute = 2 + m.recompute.layers_per_input;
  return {c.is_deepseek ? 0 : 1,
          c.layout.world,
          c.layout.tp,
          c.layout.ep,
          c.layout.tpe,
          static_cast<int64_t>(m.experts.dispatcher),
          recompute,
          m.experts.grouped_gemm ? 0 : 1,
          (m.latent_attention.replicate_down ? 1 : 0) + (m.latent_attention.fuse_down ? 2 : 0),
          (b.overlap_reduce ? 1 : 0) + (b.distributed ? 2 : 0),
          static_cast<int64_t>(c.drop),
          static_cast<int64_t>(c.filling)};
}

}  // namespace

LayoutCase single_rank(Drop drop) {
  LayoutCase layout;
  set_drop(drop, layout.model);
  return layout;
}

std::vector<MatrixCase> layout_matrix() {
  PairSet missing = possible_pairs();
  std::vector<MatrixCase> cases;
  for (const SettingValues& row : rows()) cases.push_back(to_case(chosen_for(row, missing)));
  return cases;
}

std::vector<std::string> missing_pairs(const std::vector<MatrixCase>& cases) {
  PairSet missing = possible_pairs();
  for (const MatrixCase& c : cases) missing.erase(to_values(c));
  return missing.texts();
}

}  // namespace moetron
