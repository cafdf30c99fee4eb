// Megatron's GPTDataset: sequences are shuffled, repeated for as many epochs as the samples need,
// cut into samples of sequence_length + 1 tokens that share one token with the next, and the
// samples are shuffled. Orders and samples equal Megatron's for the same seed, as long as there is
// one index (sample_passes.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moetron/data/gpt_index.h"
#include "moetron/data/sample_passes.h"
#include "moetron/data/token_dataset.h"
#include "moetron/formats/indexed_dataset.h"

namespace moetron {

struct GptDatasetSettings {
  int64_t sequence_length = 0;  // tokens of a sample
  uint32_t seed = 1234;
  int64_t vocab_size = 0;             // a token outside is an InputError; 0 checks nothing
  std::optional<int32_t> eod_id;      // needed by eod_mask_loss
  bool eod_mask_loss = false;         // no loss where the input is the end-of-document token
  bool reset_position_ids = false;    // positions start again with every document
  bool reset_attention_mask = false;  // document_bounds are the documents'; else all is one
  // Where the three indices are kept; empty: in memory, built by every rank. The key is our own: a
  // hash of the .idx file's content and of all numbers that the indices depend on.
  std::filesystem::path cache_folder;
  // The rank that writes the cache has true; the others wait for it, then have false and map it.
  bool build_cache = true;
  int64_t first_sample = 0;  // that will be read: the indices before its own are not needed
  PassLimits limits = {};
};

class GptDataset : public TokenDataset {
 public:
  // Sequences [range.begin, range.end) of `source`; `counts` as SamplePasses has them. Throws
  // ConfigError when the range holds too few tokens for a sample.
  GptDataset(std::shared_ptr<const IndexedDataset> source, SequenceRange range,
             std::span<const int64_t> counts, const GptDatasetSettings& settings);

  // Whole epochs are indexed, so there may be more samples than asked for.
  int64_t size() const override { return passes_.num_samples(); }
  int64_t sequence_length() const override { return settings_.sequence_length; }
  TokenSample get(int64_t index) const override;

 private:
  // The index of one pass: kept, mapped, or else built in memory by this rank alone.
  std::shared_ptr<const GptIndex> index_of(const SamplePasses::Pass& pass) const;
  void prepare_indices() const;
  // tokens [sequence + 1] and the starts of documents in them.
  void read_tokens(const GptIndex& index, int64_t sample, std::vector<int32_t>* tokens,
                   std::vector<int32_t>* starts) const;

  std::shared_ptr<const IndexedDataset> source_;
  GptDatasetSettings settings_;
  SamplePasses passes_;
  mutable std::mutex mutex_;                                         // guards what follows
  mutable std::map<int64_t, std::shared_ptr<const GptIndex>> kept_;  // by pass; a few
};

}  // namespace moetron
