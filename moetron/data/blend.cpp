#include "moetron/data/blend.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Spare samples of a dataset beyond its share, as in Megatron.
constexpr double kSurplus = 0.005;
constexpr const char* kSplitNames[3] = {"train", "valid", "test"};

bool parse_weight(const std::string& word, double* weight) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), *weight);
  return error == std::errc() && end == word.data() + word.size();
}

// NumPy's order of summation (pairwise above 8, in blocks of 128), for equal rounding.
double numpy_sum(std::span<const double> values) {
  if (values.size() < 8) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum;
  }
  if (values.size() <= 128) {
    std::array<double, 8> lane;
    std::copy_n(values.begin(), 8, lane.begin());
    size_t i = 8;
    for (; i + 8 <= values.size(); i += 8)
      for (size_t k = 0; k < 8; ++k) lane[k] += values[i + k];
    double sum =
        ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    for (; i < values.size(); ++i) sum += values[i];
    return sum;
  }
  const size_t half = values.size() / 2 - values.size() / 2 % 8;
  return numpy_sum(values.first(half)) + numpy_sum(values.subspan(half));
}

std::vector<double> normalized(std::vector<double> weights) {
  const double sum = numpy_sum(weights);
  for (double& weight : weights) weight /= sum;
  return weights;
}

struct Source {
  std::shared_ptr<const IndexedDataset> dataset;
  std::array<SequenceRange, 3> ranges;
};

bool is_empty(SequenceRange range) {
  return range.begin == range.end;
}

using Counts = std::vector<int64_t>;

std::unique_ptr<TokenDataset> make_dataset(const Source& source, size_t split, const Counts& counts,
                                           const GptDatasetSettings& settings) {
  return std::make_unique<GptDataset>(source.dataset, source.ranges[split], counts, settings);
}

// A dataset of each source with its part of what the blend was made for, count by count.
std::vector<std::unique_ptr<TokenDataset>> make_datasets(const std::vector<const Source*>& sources,
                                                         const std::vector<Counts>& counts,
                                                         size_t split, const BlendOrder& order,
                                                         const GptDatasetSettings& settings) {
  const std::vector<int64_t> first =
      settings.first_sample > 0 ? order.drawn(settings.first_sample) : Counts(sources.size());
  std::vector<std::unique_ptr<TokenDataset>> datasets;
  for (size_t i = 0; i < sources.size(); ++i) {
    GptDatasetSettings own = settings;
    own.first_sample = first[i];
    datasets.push_back(make_dataset(*sources[i], split, counts[i], own));
  }
  return datasets;
}

// What each dataset gives of a blend of `size`: of a long one not exactly, but no less. The greedy
// order never draws from a dataset that is ahead of its share.
Counts drawn_at_most(const BlendOrder& order, std::span<const double> weights, int64_t size,
                     const PassLimits& limits) {
  if (size <= limits.elements) return order.drawn(size);
  Counts drawn;
  for (const double weight : weights)
    drawn.push_back(static_cast<int64_t>(weight * static_cast<double>(size)) + 2);
  return drawn;
}

// Each prefix gives its share of the samples, in as many epochs as that takes.
std::unique_ptr<TokenDataset> blend_by_weights(const std::vector<Source>& sources,
                                               const std::vector<double>& weights, size_t split,
                                               const Counts& counts,
                                               const GptDatasetSettings& settings) {
  std::vector<const Source*> used;
  for (const Source& source : sources) {
    MT_CHECK_CONFIG(!is_empty(source.ranges[split]), "data-path ", source.dataset->prefix(),
                    " has ", source.dataset->num_sequences(),
                    " sequences, none of which fall to the ", kSplitNames[split], " split");
    used.push_back(&source);
  }
  const std::vector<double> shares = normalized(weights);
  auto order = std::make_unique<BlendOrder>(shares);
  std::vector<Counts> needed(sources.size());
  int64_t size = 0;
  for (const int64_t count : counts) {
    Counts wanted;
    size = 0;
    for (const double weight : weights) {
      const double target = std::ceil(static_cast<double>(count) * weight);
      wanted.push_back(
          std::max<int64_t>(1, static_cast<int64_t>(std::ceil(target * (1 + kSurplus)))));
      size += static_cast<int64_t>(target);
    }
    // Small blends of many datasets may draw more than the surplus covers, where Megatron gives up.
    const Counts drawn = drawn_at_most(*order, shares, size, settings.limits);
    for (size_t i = 0; i < sources.size(); ++i) needed[i].push_back(std::max(wanted[i], drawn[i]));
  }
  auto datasets = make_datasets(used, needed, split, *order, settings);
  return std::make_unique<BlendedDataset>(std::move(datasets), std::move(order), size);
}

// Every prefix that fills a sample, in proportion to the samples of its epoch: one epoch of each,
// as in Megatron, and where that is too little, as many as it takes.
std::unique_ptr<TokenDataset> blend_by_size(const std::vector<Source>& sources, size_t split,
                                            const Counts& counts,
                                            const GptDatasetSettings& settings) {
  std::vector<const Source*> used;
  std::vector<double> sizes;
  int64_t total = 0;
  for (const Source& source : sources) {
    const SequenceRange range = source.ranges[split];
    if (count_tokens(*source.dataset, range) <= settings.sequence_length) continue;
    const GptIndexKey epoch{range, settings.sequence_length, 0, settings.seed};
    const int64_t size = plan_gpt_index(*source.dataset, epoch).num_samples;
    used.push_back(&source);
    sizes.push_back(static_cast<double>(size));
    total += size;
  }
  if (used.empty()) return nullptr;
  const std::vector<double> shares = normalized(std::move(sizes));
  auto order = std::make_unique<BlendOrder>(shares);
  std::vector<Counts> needed(used.size());
  for (const int64_t count : counts) {
    const bool suffices = count <= total;
    const Counts drawn =
        suffices ? Counts(used.size()) : drawn_at_most(*order, shares, count, settings.limits);
    for (size_t i = 0; i < used.size(); ++i) needed[i].push_back(drawn[i]);
  }
  auto datasets = make_datasets(used, needed, split, *order, settings);
  return std::make_unique<BlendedDataset>(std::move(datasets), std::move(order), counts.back());
}

}  // namespace

DataBlend parse_blend(std::span<const std::string> words) {
  MT_CHECK_CONFIG(!words.empty(), "data-path is empty");
  DataBlend blend;
  double weight = 0;
  bool pairs = words.size() % 2 == 0;
  for (size_t i = 0; pairs && i < words.size(); i += 2) pairs = parse_weight(words[i], &weight);
  if (!pairs) {
    blend.prefixes.assign(words.begin(), words.end());
    return blend;
  }
  for (size_t i = 0; i < words.size(); i += 2) {
    parse_weight(words[i], &weight);
    MT_CHECK_CONFIG(weight > 0 && std::isfinite(weight), "data-path weight (", words[i], ") of ",
                    words[i + 1], " must be positive");
    blend.weights.push_back(weight);
    blend.prefixes.push_back(words[i + 1]);
  }
  return blend;
}

BlendedDataset::BlendedDataset(std::vector<std::unique_ptr<TokenDataset>> datasets,
                               std::unique_ptr<const BlendOrder> order, int64_t size)
    : datasets_(std::move(datasets)), order_(std::move(order)), size_(size) {
  MT_CHECK(!datasets_.empty(), "a blend of no datasets");
}

TokenSample BlendedDataset::get(int64_t index) const {
  MT_CHECK(index >= 0 && index < size(), "sample ", index, " of ", size());
  const BlendOrder::Draw draw = order_->at(index);
  return datasets_[static_cast<size_t>(draw.dataset)]->get(draw.sample);
}

DatasetSplits build_gpt_datasets(const DataBlend& blend, const std::string& split,
                                 const std::array<std::vector<int64_t>, 3>& counts,
                                 const GptDatasetSettings& settings) {
  std::vector<Source> sources;
  for (const std::string& prefix : blend.prefixes) {
    auto dataset = std::make_shared<const IndexedDataset>(prefix);
    const auto ranges = split_sequences(split, dataset->num_sequences());
    sources.push_back({std::move(dataset), ranges});
  }
  DatasetSplits splits;
  for (size_t i = 0; i < 3; ++i) {
    const bool wanted = std::any_of(sources.begin(), sources.end(), [&](const Source& source) {
      return !counts[i].empty() && counts[i].back() > 0 && !is_empty(source.ranges[i]);
    });
    if (!wanted) continue;
    GptDatasetSettings own = settings;
    if (i > 0) own.first_sample = 0;  // every evaluation begins there
    if (!blend.weights.empty())
      splits[i] = blend_by_weights(sources, normalized(blend.weights), i, counts[i], own);
    else if (sources.size() > 1)
      splits[i] = blend_by_size(sources, i, counts[i], own);
    else
      splits[i] = make_dataset(sources[0], i, counts[i], own);
  }
  return splits;
}

}  // namespace moetron
