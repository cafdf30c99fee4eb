#include "pipeline_cases.h"

#include <algorithm>
#include <array>
#include <map>

#include "moetron/base/error.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

enum Setting {
  kSchedule,
  kPp,        // 1, 2, 4: the power of two
  kCount,     // of micro-batches
  kDivision,  // of the layers
  kRanks,     // of a stage: the power of two
  kTp,
  kEp,
  kTpe,
  kModel,  // from here on anything goes with anything
  kTied,
  kDispatcher,
  kRecompute,
  kOptimizer,
  kProduct,
  kFilling,
  kNumSettings
};
constexpr int64_t kNumValues[kNumSettings] = {0, 3, 3, 4, 3, 2, 3, 2, 2, 2, num_plain_dispatchers(),
                                              5, 4, 2, 2};
constexpr size_t kFirstFree = kModel;

enum Division { kEven, kUneven, kNoneAtEnds, kNoneInside };

int64_t count_of(const SettingValues& v) {
  const int64_t pp = int64_t{1} << v[kPp];
  return v[kCount] == 0 ? 2 * pp : v[kCount] == 1 ? 2 * pp + 1 : 3 * pp;
}

ScheduleRequest request_of(const SettingValues& v) {
  ScheduleRequest request = schedule_requests(1 << v[kPp]).at(static_cast<size_t>(v[kSchedule]));
  request.num_micro_batches = static_cast<int>(count_of(v));
  return request;
}

// Every stage gets layers at the even division, and one of them more than the others.
int64_t num_layers(const SettingValues& v) {
  const int64_t stages = placement_of(request_of(v)).num_stages();
  return std::max<int64_t>(v[kPp] == 2 ? 9 : 5, stages + 1);
}

std::vector<int64_t> layers_by_stage(Division division, int64_t stages, int64_t layers) {
  std::vector<bool> is_empty(static_cast<size_t>(stages));
  if (division == kNoneAtEnds) {
    is_empty.front() = true;
    if (stages > 2) is_empty.back() = true;
  }
  if (division == kNoneInside) {
    is_empty[1] = is_empty[2] = true;
    if (stages > 6) is_empty[5] = true;
  }
  if (division == kUneven) {
    std::vector<int64_t> counts(static_cast<size_t>(stages), 1);
    counts[0] = layers - stages + 1;
    return counts;
  }
  const auto used = std::count(is_empty.begin(), is_empty.end(), false);
  std::vector<int64_t> counts;
  int64_t place = 0;
  for (const bool empty : is_empty) {
    counts.push_back(empty ? 0 : layers / used + (place < layers % used ? 1 : 0));
    place += empty ? 0 : 1;
  }
  return counts;
}

std::vector<int64_t> stage_layers(const SettingValues& v) {
  if (v[kDivision] == kEven) return {};
  const ScheduleRequest request = request_of(v);
  const Placement placement = placement_of(request);
  const auto by_stage =
      layers_by_stage(static_cast<Division>(v[kDivision]), placement.num_stages(), num_layers(v));
  std::vector<int64_t> by_chunk;
  for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
    for (int rank = 0; rank < placement.num_ranks(); ++rank) {
      by_chunk.push_back(by_stage[static_cast<size_t>(placement.stage(rank, chunk))]);
    }
  }
  return by_chunk;
}

bool is_possible(const SettingValues& v) {
  const int64_t ranks = v[kRanks];  // powers of two all
  if (v[kPp] + ranks > 4 || v[kTp] > ranks || v[kEp] + v[kTpe] > ranks) return false;
  if (v[kPp] == 0 && v[kCount] == 2) return false;  // 3 is 2P + 1 already
  const ScheduleRequest request = request_of(v);
  const int stages = placement_of(request).num_stages();
  return v[kDivision] == kEven || stages >= (v[kDivision] == kNoneInside ? 4 : 2);
}

bool runs(const ScheduleRequest& request) {
  try {
    make_schedule(request);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

// All that can be chosen of the settings that depend on each other; small worlds first.
std::vector<SettingValues> rows() {
  std::vector<SettingValues> all = {{}};
  for (size_t setting = 0; setting < kFirstFree; ++setting) {
    const auto count = setting == kSchedule ? static_cast<int64_t>(schedule_requests(1).size())
                                            : kNumValues[setting];
    std::vector<SettingValues> longer;
    for (const SettingValues& values : all) {
      for (int64_t value = 0; value < count; ++value) {
        longer.push_back(values);
        longer.back().push_back(value);
      }
    }
    all = std::move(longer);
  }
  std::erase_if(all, [](const SettingValues& v) { return !is_possible(v); });
  std::map<std::array<int64_t, 3>, bool> known;  // making a schedule may take long
  std::erase_if(all, [&](const SettingValues& v) {
    const std::array key = {v[kSchedule], v[kPp], v[kCount]};
    if (!known.count(key)) known[key] = runs(request_of(v));
    return !known.at(key);
  });
  std::stable_sort(all.begin(), all.end(), [](const SettingValues& a, const SettingValues& b) {
    return a[kPp] + a[kRanks] < b[kPp] + b[kRanks];
  });
  return all;
}

// The row with each free setting at the value that has most missing pairs with those before it; of
// equals, with those behind it.
SettingValues completed(SettingValues values, const PairSet& missing) {
  for (size_t setting = kFirstFree; setting < kNumSettings; ++setting) {
    values.push_back(0);
    int64_t best = 0;
    std::pair<int, int> best_count = {-1, -1};
    for (int64_t value = 0; value < kNumValues[setting]; ++value) {
      values.back() = value;
      const std::pair<int, int> count = {missing.count_before(values, setting),
                                         missing.count_later(setting, value)};
      if (count > best_count) {
        best = value;
        best_count = count;
      }
    }
    values.back() = best;
  }
  return values;
}

PairSet possible_pairs(const std::vector<SettingValues>& rows) {
  PairSet pairs;
  for (const SettingValues& row : rows) {
    // Free settings two at a time; the others are at their first value.
    for (size_t a = kFirstFree; a < kNumSettings; ++a) {
      for (size_t b = a; b < kNumSettings; ++b) {
        for (int64_t value_a = 0; value_a < kNumValues[a]; ++value_a) {
          for (int64_t value_b = 0; value_b < kNumValues[b]; ++value_b) {
            SettingValues values = row;
            values.resize(kNumSettings);
            values[b] = value_b;
            values[a] = value_a;
            pairs.insert(values);
          }
        }
      }
    }
  }
  return pairs;
}

PipelineCase to_case(const SettingValues& v) {
  PipelineCase made;
  made.values = v;
  made.model = concat(v[kModel] == 0 ? "deepseek" : "qwen", v[kTied] == 1 ? ", tied" : ", untied");
  made.config = v[kModel] == 0 ? tiny_deepseek() : tiny_qwen_moe();
  made.config.num_layers = num_layers(v);
  made.config.tie_word_embeddings = v[kTied] == 1;
  made.filling = static_cast<Filling>(v[kFilling]);
  if (made.filling == Filling::kDocuments) made.model += ", documents";
  made.num_micro_batches = count_of(v);
  LayoutCase& layout = made.layout;
  layout.pp = int64_t{1} << v[kPp];
  layout.world = layout.pp << v[kRanks];
  layout.tp = int64_t{1} << v[kTp];
  layout.ep = int64_t{1} << v[kEp];
  layout.tpe = int64_t{1} << v[kTpe];
  layout.schedule = request_of(v);
  layout.stage_layers = stage_layers(v);
  layout.model.experts.dispatcher = plain_dispatcher(v[kDispatcher]);
  layout.model.recompute = recompute_of(v[kRecompute]);
  layout.model.latent_attention.recompute_norms = v[kRecompute] % 2 == 1;
  layout.model.experts.grouped_gemm = v[kProduct] == 0;
  layout.buckets.overlap_reduce = v[kOptimizer] % 2 == 1;
  layout.buckets.distributed = v[kOptimizer] >= 2;
  layout.buckets.overlap_gather = v[kOptimizer] == 3;
  layout.buckets.bucket_elements = 3000;  // several buckets
  return made;
}

}  // namespace

TrainedTask PipelineCase::task() const {
  const int64_t dp = layout.world / layout.pp / layout.tp;
  return {.config = config,
          .steps = 2,
          .global_batch_size = num_micro_batches * dp,
          .filling = filling,
          .with_receipts = true};
}

LayoutCase PipelineCase::reference() const {
  LayoutCase one;
  one.world = layout.world / layout.pp;
  one.tp = layout.tp;
  one.ep = layout.ep;
  one.tpe = layout.tpe;
  one.model.experts.dispatcher = layout.model.experts.dispatcher;
  one.model.experts.grouped_gemm = layout.model.experts.grouped_gemm;
  return one;
}

std::vector<ScheduleRequest> schedule_requests(int num_ranks) {
  std::vector<ScheduleRequest> requests;
  for (const NamedSchedule& schedule : kSchedules) {
    requests.push_back({.kind = schedule.kind, .num_ranks = num_ranks});
  }
  requests.push_back(
      {.kind = ScheduleKind::kInterleaved, .num_ranks = num_ranks, .loop_chunks = 3});
  const ScheduleRequest plus{.kind = ScheduleKind::kDualPipeVPlus, .num_ranks = num_ranks};
  requests.push_back(plus);
  requests.back().communication = 1;
  requests.push_back(plus);
  requests.back().activation_cap = num_ranks + 2;
  return requests;
}

std::vector<PipelineCase> pipeline_matrix() {
  const std::vector<SettingValues> all_rows = rows();
  PairSet missing = possible_pairs(all_rows);
  std::vector<PipelineCase> cases;
  for (;;) {
    SettingValues best;
    int best_count = 0;
    for (const SettingValues& row : all_rows) {
      const SettingValues values = completed(row, missing);
      const int count = missing.count(values);
      if (count > best_count) {
        best = values;
        best_count = count;
      }
    }
    if (best_count == 0) return cases;
    missing.erase(best);
    cases.push_back(to_case(best));
  }
}

std::vector<PipelineCase> every_division() {
  std::vector<PipelineCase> cases;
  for (SettingValues values : rows()) {
    if (values[kRanks] > 0) continue;
    values.resize(kNumSettings);
    cases.push_back(to_case(values));
  }
  return cases;
}

std::vector<std::string> missing_pairs(const std::vector<PipelineCase>& cases) {
  PairSet missing = possible_pairs(rows());
  for (const PipelineCase& c : cases) missing.erase(c.values);
  return missing.texts();
}

}  // namespace moetron
