// Several GPT datasets mixed by weight, with Megatron's greedy order: sample t goes to the dataset
// that lags most behind its share.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "moetron/data/gpt_dataset.h"
#include "moetron/data/token_dataset.h"

namespace moetron {

struct DataBlend {
  std::vector<std::string> prefixes;
  std::vector<double> weights;  // empty: in proportion to the datasets' samples
};

// `--data-path`: "PREFIX", "WEIGHT PREFIX WEIGHT PREFIX ..." or "PREFIX PREFIX ...". As in Megatron
// an even number of words are pairs, unless the first of a pair is no number.
DataBlend parse_blend(std::span<const std::string> words);

struct BlendIndices {
  std::vector<int16_t> dataset;  // [size]
  std::vector<int64_t> sample;   // [size], number within that dataset
};
BlendIndices build_blending_indices(std::span<const double> weights, int64_t size);

class BlendedDataset : public TokenDataset {
 public:
  // The indices may draw no more samples from a dataset than it holds.
  BlendedDataset(std::vector<std::unique_ptr<TokenDataset>> datasets, BlendIndices indices);

  int64_t size() const override { return static_cast<int64_t>(indices_.dataset.size()); }
  int64_t sequence_length() const override { return datasets_.front()->sequence_length(); }
  TokenSample get(int64_t index) const override;
  const BlendIndices& indices() const { return indices_; }

 private:
  std::vector<std::unique_ptr<TokenDataset>> datasets_;
  BlendIndices indices_;
};

// train, valid, test; null where the split or the number of samples is empty.
using DatasetSplits = std::array<std::unique_ptr<TokenDataset>, 3>;

// Opens the prefixes, splits their sequences and builds the datasets, `num_samples` of each at
// least where the weights say how to repeat data. A blend without weights holds one epoch.
DatasetSplits build_gpt_datasets(const DataBlend& blend, const std::string& split,
                                 const std::array<int64_t, 3>& num_samples,
                                 const GptDatasetSettings& settings);

}  // namespace moetron
