// Conversations as tokens, with the weight that each token has as a target, in a folder that is
// made once and mapped from then on: tokens.bin/.idx and weights.bin/.idx hold a conversation a
// sequence (formats/indexed_dataset.h; weights are fp32 in the bits of int32), notes.bin/.idx of
// each its line in the file and its first target, conversations.json the rest and the fingerprints
// of the others.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/json.h"
#include "moetron/formats/indexed_dataset.h"

namespace moetron {

// Read-only and safe to share between threads.
class ConversationCache {
 public:
  // Throws InputError where a file is missing, cut short or not the one that was written.
  explicit ConversationCache(const std::filesystem::path& folder);

  int64_t size() const { return tokens_.num_sequences(); }  // conversations
  int64_t num_tokens() const { return tokens_.num_tokens(); }
  int32_t length(int64_t conversation) const;  // tokens
  int32_t line(int64_t conversation) const;    // in the file; of a JSON array the record
  // Place of the first token that is a target.
  int32_t first_target(int64_t conversation) const;
  // Copies the first tokens.size() tokens and as many weights.
  void get(int64_t conversation, std::span<int32_t> tokens, std::span<float> weights) const;
  // What was handed to commit().
  const Json& facts() const { return facts_; }

 private:
  int32_t note(int64_t conversation, int64_t which) const;

  Json facts_;
  IndexedDataset tokens_, weights_, notes_;
};

// Writes beside `folder` and puts all in place at commit(); without it nothing is left.
class ConversationCacheWriter {
 public:
  ConversationCacheWriter(const std::filesystem::path& folder, int64_t vocab_size);
  ~ConversationCacheWriter();
  ConversationCacheWriter(const ConversationCacheWriter&) = delete;
  ConversationCacheWriter& operator=(const ConversationCacheWriter&) = delete;

  // Weights are of the tokens as targets, at least 0, one above it behind the first token.
  void add(std::span<const int32_t> tokens, std::span<const float> weights, int32_t line);
  // What lies at `folder` and is whole, of another run that was faster, stays there instead;
  // what is damaged is replaced.
  void commit(const Json& facts);

 private:
  std::filesystem::path folder_;
  std::filesystem::path making_;
  IndexedDatasetWriter tokens_, weights_, notes_;
};

}  // namespace moetron
