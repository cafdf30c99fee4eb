// Whether data holds only tokens of the vocabulary: told before the first step, not in the middle
// of a run.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>

#include "moetron/data/gpt_index.h"

namespace moetron {

// The part of the sequences that one of several ranks looks at, and by how many threads.
struct CheckShare {
  int64_t part = 0;
  int64_t num_parts = 1;
  int num_threads = 1;
};

// Looks at every token of this share of the sequences of `range`, for `time` at most. Returns
// whether it has come to the end. Throws InputError for a token outside [0, vocab_size), naming
// file, token and sequence.
bool check_tokens(const IndexedDataset& source, SequenceRange range, int64_t vocab_size,
                  const CheckShare& share, std::chrono::milliseconds time);

// Whether `folder` says that these sequences were checked against this vocabulary to their end, of
// files with the same index, size, time of writing and sample. An empty folder says nothing.
bool tokens_were_checked(const IndexedDataset& source, SequenceRange range, int64_t vocab_size,
                         const std::filesystem::path& folder);
void note_checked_tokens(const IndexedDataset& source, SequenceRange range, int64_t vocab_size,
                         const std::filesystem::path& folder);

}  // namespace moetron
