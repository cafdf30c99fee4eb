#include "moetron/data/sample_passes.h"

#include <algorithm>

#include "moetron/base/error.h"

namespace moetron {

SamplePasses::SamplePasses(const IndexedDataset& source, const GptIndexKey& key,
                           std::span<const int64_t> counts, const PassLimits& limits)
    : key_(key) {
  MT_CHECK(!counts.empty(), "a dataset of no samples");
  const auto plan = [&](int64_t request) {
    GptIndexKey asked = key_;
    asked.num_samples = request;
    return plan_gpt_index(source, asked);
  };
  for (const int64_t count : counts) {
    if (!groups_.empty() && count <= num_samples_) continue;
    const GptIndexPlan whole = plan(groups_.empty() ? count : count - num_samples_);
    const int64_t per_epoch =
        std::max(whole.tokens_per_epoch / key.sequence_length + 1, key.range.end - key.range.begin);
    const int64_t most_epochs = std::max(limits.epochs, limits.elements / per_epoch);
    if (whole.num_epochs > most_epochs) {
      const int64_t request =
          std::max<int64_t>(1, (most_epochs * whole.tokens_per_epoch - 1) / key.sequence_length);
      const int64_t repeats = (count - num_samples_ - 1) / request;
      add(request, plan(request).num_samples, repeats);
    }
    if (groups_.empty() || count > num_samples_) {
      const int64_t request = count - (groups_.empty() ? 0 : num_samples_);
      add(request, plan(request).num_samples, 1);
    }
  }
}

void SamplePasses::add(int64_t request, int64_t size, int64_t repeats) {
  const int64_t number = groups_.empty() ? 0 : groups_.back().first_number + groups_.back().repeats;
  groups_.push_back({number, num_samples_, request, size, repeats});
  num_samples_ += size * repeats;
}

// Another order for every pass; the first has the seed's own.
SamplePasses::Pass SamplePasses::pass(const Group& group, int64_t repeat) const {
  Pass made{group.first_number + repeat, group.begin + repeat * group.size, key_};
  made.key.num_samples = group.request;
  made.key.seed = key_.seed + static_cast<uint32_t>(made.number);
  return made;
}

SamplePasses::Pass SamplePasses::of_sample(int64_t sample) const {
  MT_CHECK(sample >= 0 && sample < num_samples_, "sample ", sample, " of ", num_samples_);
  const auto behind =
      std::upper_bound(groups_.begin(), groups_.end(), sample,
                       [](int64_t value, const Group& group) { return value < group.begin; });
  const Group& group = *std::prev(behind);
  return pass(group, (sample - group.begin) / group.size);
}

std::vector<SamplePasses::Pass> SamplePasses::distinct_from(int64_t sample) const {
  std::vector<Pass> passes;
  for (const Group& group : groups_) {
    if (group.begin + group.size * group.repeats <= sample) continue;
    const int64_t repeat = std::max<int64_t>(0, sample - group.begin) / group.size;
    passes.push_back(pass(group, repeat));
  }
  return passes;
}

}  // namespace moetron
