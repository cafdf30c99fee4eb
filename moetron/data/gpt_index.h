// The three indices of a GPT dataset (documents, samples, shuffle), built in memory or mapped from
// a cache.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "moetron/data/index_array.h"
#include "moetron/data/numpy_random.h"
#include "moetron/formats/indexed_dataset.h"

namespace moetron {

// Sequences [begin, end) of an indexed dataset.
struct SequenceRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// "949,50,1" -> train, valid and test ranges of `num_sequences`, rounded as Megatron does (half to
// even). Fewer numbers leave the later splits empty. Throws ConfigError for anything but up to
// three numbers >= 0 with a positive sum.
std::array<SequenceRange, 3> split_sequences(std::string_view split, int64_t num_sequences);

int64_t count_tokens(const IndexedDataset& source, SequenceRange range);

// All that the indices depend on, beside the lengths of the sequences.
struct GptIndexKey {
  SequenceRange range;
  int64_t sequence_length = 0;
  int64_t num_samples = 0;  // wanted; 0: one epoch
  uint32_t seed = 0;
};

// The sizes that follow from the key and the lengths of the sequences alone.
struct GptIndexPlan {
  int64_t tokens_per_epoch = 0;
  int64_t num_epochs = 1;
  int64_t samples_before_final_epoch = 0;
  // The last epoch is shuffled on its own when fewer than 80 % of it are needed.
  bool separate_final_epoch = false;
  int64_t num_samples = 0;
};
// Throws ConfigError when the range holds too few tokens for a sample.
GptIndexPlan plan_gpt_index(const IndexedDataset& source, const GptIndexKey& key);

class GptIndex {
 public:
  // In memory. Throws as plan_gpt_index().
  GptIndex(const IndexedDataset& source, const GptIndexKey& key);
  // Mapped from folder/HASH-*.npy. With `build` they are written first when absent or damaged, the
  // latter with a warning; without it that is an InputError. Reads the files once, to compare their
  // hashes with those that the description holds.
  GptIndex(const IndexedDataset& source, const GptIndexKey& key,
           const std::filesystem::path& folder, bool build);

  int64_t num_samples() const { return plan_.num_samples; }
  int64_t num_documents() const;  // places in the document index, all epochs

  struct Position {
    int64_t document = 0;  // place in the document index
    int64_t offset = 0;    // tokens
  };
  // These throw InputError when a cache file holds a value out of range.
  int64_t shuffled(int64_t index) const;        // 0 <= index < num_samples()
  Position sample_start(int64_t sample) const;  // 0 <= sample <= num_samples()
  int64_t sequence(int64_t document) const;     // of the indexed dataset

 private:
  void build(const IndexedDataset& source);
  void build_documents(NumpyRandom* random);
  template <class T>
  void build_samples(const IndexedDataset& source);
  template <class T>
  void build_shuffle(NumpyRandom* random);
  void write(const std::filesystem::path& stem, const std::string& description) const;
  static bool is_written(const std::filesystem::path& stem);
  void map(const std::filesystem::path& stem);

  GptIndexKey key_;
  GptIndexPlan plan_;
  IndexArray documents_;  // [epochs * sequences], sequence numbers
  IndexArray samples_;    // [num_samples + 1, 2], place in documents_ and token offset
  IndexArray shuffle_;    // [num_samples]
};

}  // namespace moetron
