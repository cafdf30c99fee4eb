// Several GPT datasets mixed by weight, in Megatron's order (blend_order.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "moetron/data/blend_order.h"
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

class BlendedDataset : public TokenDataset {
 public:
  // The order may draw no more samples from a dataset than it holds.
  BlendedDataset(std::vector<std::unique_ptr<TokenDataset>> datasets,
                 std::unique_ptr<const BlendOrder> order, int64_t size);

  int64_t size() const override { return size_; }
  int64_t sequence_length() const override { return datasets_.front()->sequence_length(); }
  TokenSample get(int64_t index) const override;

 private:
  std::vector<std::unique_ptr<TokenDataset>> datasets_;
  std::unique_ptr<const BlendOrder> order_;
  int64_t size_;
};

// train, valid, test; null where the split or the number of samples is empty.
using DatasetSplits = std::array<std::unique_ptr<TokenDataset>, 3>;

// Opens the prefixes, splits their sequences and builds the datasets, each for the last of its
// `counts` of samples at least; those before it are of the runs that this one continues, ascending
// (sample_passes.h). Data is repeated as often as that takes.
DatasetSplits build_gpt_datasets(const DataBlend& blend, const std::string& split,
                                 const std::array<std::vector<int64_t>, 3>& counts,
                                 const GptDatasetSettings& settings);

}  // namespace moetron
