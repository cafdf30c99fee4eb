// How a GPT dataset goes through its data: one index of samples after the other, each with an order
// of its own. A run has one, as in Megatron, unless it continues another that was made for fewer
// samples, or repeats its data so often that one index would not fit into memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moetron/data/gpt_index.h"

namespace moetron {

// An index of more epochs than this that has more than so many samples or documents is cut.
struct PassLimits {
  int64_t epochs = 16;
  int64_t elements = int64_t{1} << 25;  // 400 MB of index at most, where documents are samples
};

class SamplePasses {
 public:
  // `counts`: the samples that a run and the runs that it continues were made for, ascending; 0:
  // one epoch. An index is used up, so that every sample of it is seen, before one for what a later
  // count needs beyond it begins. `key.num_samples` is not read. Throws as plan_gpt_index().
  SamplePasses(const IndexedDataset& source, const GptIndexKey& key,
               std::span<const int64_t> counts, const PassLimits& limits);

  int64_t num_samples() const { return num_samples_; }

  struct Pass {
    int64_t number = 0;
    int64_t begin = 0;  // its first sample
    GptIndexKey key;
  };
  Pass of_sample(int64_t sample) const;  // 0 <= sample < num_samples()
  // The first passes of each size that end behind `sample`: all, unless data repeats without end.
  std::vector<Pass> distinct_from(int64_t sample) const;

 private:
  // Passes of one size in a row.
  struct Group {
    int64_t first_number = 0;
    int64_t begin = 0;
    int64_t request = 0;  // samples that each index is made for
    int64_t size = 0;     // samples that it has
    int64_t repeats = 1;
  };
  void add(int64_t request, int64_t size, int64_t repeats);
  Pass pass(const Group& group, int64_t repeat) const;

  GptIndexKey key_;
  std::vector<Group> groups_;
  int64_t num_samples_ = 0;
};

}  // namespace moetron
