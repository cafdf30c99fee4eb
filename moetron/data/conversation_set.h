// The conversations of one or more files under one numbering, cut into those to train on and those
// held out. They may be pairs: then 2i ends with the chosen answer and 2i + 1 with the rejected one
// to the same prompt, and lists of what is trained on hold 2i for both.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "moetron/data/conversation_cache.h"

namespace moetron {

struct ConversationFile {
  std::shared_ptr<const ConversationCache> cache;
  double weight = 0;  // share of an epoch; used where any file has one
};

// Safe to share between threads.
class ConversationSet {
 public:
  // `pairs`: all files hold pairs.
  explicit ConversationSet(std::vector<ConversationFile> files, bool pairs = false);

  bool has_pairs() const { return has_pairs_; }
  int64_t num_sides() const { return has_pairs_ ? 2 : 1; }      // conversations of a record
  int64_t num_records() const { return size() / num_sides(); }  // pairs, or conversations

  int64_t size() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t num_files() const { return static_cast<int64_t>(files_.size()); }
  const std::vector<int32_t>& lengths() const { return lengths_; }  // tokens, uncut
  double weight(int64_t file) const { return files_[static_cast<size_t>(file)].weight; }
  bool is_weighted() const;
  // Where a conversation lies.
  struct Place {
    int64_t file = 0;
    int64_t number = 0;  // in the file's cache
  };
  Place place(int64_t conversation) const;
  int32_t line(int64_t conversation) const;
  int32_t first_target(int64_t conversation) const;
  // As ConversationCache::get().
  void get(int64_t conversation, std::span<int32_t> tokens, std::span<float> weights) const;

 private:
  const ConversationCache& cache(const Place& place) const;

  std::vector<ConversationFile> files_;
  bool has_pairs_;
  std::vector<int64_t> begins_;  // of the files, and the end
  std::vector<int32_t> lengths_;
};

struct SplitSettings {
  uint64_t seed = 0;
  double eval_fraction = 0;  // of the records, rounded to whole ones
  int64_t sequence_length = 0;
  bool truncates = false;  // longer ones are cut, else left out
};

struct ConversationSplit {
  std::vector<int32_t> lengths;   // of all, cut to the sequence
  std::vector<int64_t> training;  // ascending
  std::vector<int64_t> held_out;  // ascending
  std::vector<int64_t> too_long;  // in neither; with truncation those whose targets are cut off
  std::vector<int64_t> cut;       // of the others, those that are longer than the sequence
};

// Who is held out follows from the seed and the number of records alone. A pair is too long where
// either side is.
ConversationSplit split_conversations(const ConversationSet& set, const SplitSettings& settings);

}  // namespace moetron
