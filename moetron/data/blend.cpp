#include "moetron/data/blend.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

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

std::unique_ptr<TokenDataset> make_dataset(const Source& source, size_t split, int64_t num_samples,
                                           const GptDatasetSettings& settings) {
  return std::make_unique<GptDataset>(source.dataset, source.ranges[split], num_samples, settings);
}

// Each prefix gives its share of `num_samples`, in as many epochs as that takes.
std::unique_ptr<TokenDataset> blend_by_weights(const std::vector<Source>& sources,
                                               const std::vector<double>& weights, size_t split,
                                               int64_t num_samples,
                                               const GptDatasetSettings& settings) {
  std::vector<int64_t> needed;
  int64_t size = 0;
  for (const double weight : weights) {
    const double target = std::ceil(static_cast<double>(num_samples) * weight);
    needed.push_back(
        std::max<int64_t>(1, static_cast<int64_t>(std::ceil(target * (1 + kSurplus)))));
    size += static_cast<int64_t>(target);
  }
  BlendIndices indices = build_blending_indices(normalized(weights), size);
  // Small blends of many datasets may draw more than the surplus covers, where Megatron gives up.
  for (size_t t = 0; t < indices.dataset.size(); ++t) {
    int64_t& count = needed[static_cast<size_t>(indices.dataset[t])];
    count = std::max(count, indices.sample[t] + 1);
  }
  std::vector<std::unique_ptr<TokenDataset>> datasets;
  for (size_t i = 0; i < sources.size(); ++i) {
    MT_CHECK_CONFIG(!is_empty(sources[i].ranges[split]), "data-path ", sources[i].dataset->prefix(),
                    " has ", sources[i].dataset->num_sequences(),
                    " sequences, none of which fall to the ", kSplitNames[split], " split");
    datasets.push_back(make_dataset(sources[i], split, needed[i], settings));
  }
  return std::make_unique<BlendedDataset>(std::move(datasets), std::move(indices));
}

// One epoch of every prefix that fills a sample, in proportion to the samples.
std::unique_ptr<TokenDataset> blend_by_size(const std::vector<Source>& sources, size_t split,
                                            int64_t num_samples,
                                            const GptDatasetSettings& settings) {
  std::vector<std::unique_ptr<TokenDataset>> datasets;
  std::vector<double> sizes;
  int64_t total = 0;
  for (const Source& source : sources) {
    if (count_tokens(*source.dataset, source.ranges[split]) <= settings.sequence_length) continue;
    datasets.push_back(make_dataset(source, split, 0, settings));
    sizes.push_back(static_cast<double>(datasets.back()->size()));
    total += datasets.back()->size();
  }
  if (datasets.empty()) return nullptr;
  BlendIndices indices =
      build_blending_indices(normalized(std::move(sizes)), std::min(num_samples, total));
  return std::make_unique<BlendedDataset>(std::move(datasets), std::move(indices));
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

BlendIndices build_blending_indices(std::span<const double> weights, int64_t size) {
  MT_CHECK_CONFIG(weights.size() <= size_t{std::numeric_limits<int16_t>::max()}, "a blend of ",
                  weights.size(), " datasets is above ", std::numeric_limits<int16_t>::max());
  BlendIndices indices;
  indices.dataset.reserve(static_cast<size_t>(size));
  indices.sample.reserve(static_cast<size_t>(size));
  std::vector<int64_t> drawn(weights.size());
  for (int64_t t = 0; t < size; ++t) {
    const double position = std::max(static_cast<double>(t), 1.0);
    size_t chosen = 0;
    double largest_lag = weights[0] * position - static_cast<double>(drawn[0]);
    for (size_t i = 1; i < weights.size(); ++i) {
      const double lag = weights[i] * position - static_cast<double>(drawn[i]);
      if (lag <= largest_lag) continue;
      largest_lag = lag;
      chosen = i;
    }
    indices.dataset.push_back(static_cast<int16_t>(chosen));
    indices.sample.push_back(drawn[chosen]++);
  }
  return indices;
}

BlendedDataset::BlendedDataset(std::vector<std::unique_ptr<TokenDataset>> datasets,
                               BlendIndices indices)
    : datasets_(std::move(datasets)), indices_(std::move(indices)) {
  MT_CHECK(!datasets_.empty(), "a blend of no datasets");
  for (size_t t = 0; t < indices_.dataset.size(); ++t) {
    const auto dataset = static_cast<size_t>(indices_.dataset[t]);
    MT_CHECK(dataset < datasets_.size() && indices_.sample[t] < datasets_[dataset]->size(),
             "the blend draws sample ", indices_.sample[t], " of dataset ", dataset);
  }
}

TokenSample BlendedDataset::get(int64_t index) const {
  MT_CHECK(index >= 0 && index < size(), "sample ", index, " of ", size());
  const auto place = static_cast<size_t>(index);
  return datasets_[static_cast<size_t>(indices_.dataset[place])]->get(indices_.sample[place]);
}

DatasetSplits build_gpt_datasets(const DataBlend& blend, const std::string& split,
                                 const std::array<int64_t, 3>& num_samples,
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
      return num_samples[i] > 0 && !is_empty(source.ranges[i]);
    });
    if (!wanted) continue;
    if (!blend.weights.empty())
      splits[i] = blend_by_weights(sources, normalized(blend.weights), i, num_samples[i], settings);
    else if (sources.size() > 1)
      splits[i] = blend_by_size(sources, i, num_samples[i], settings);
    else
      splits[i] = make_dataset(sources[0], i, num_samples[i], settings);
  }
  return splits;
}

}  // namespace moetron
