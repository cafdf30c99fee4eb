// Megatron's indexed dataset: PREFIX.bin holds token ids back to back without a header, PREFIX.idx
// (little-endian, unaligned) holds the type, the length and place of every sequence, and where
// documents begin. Text documents have one sequence each, empty ones none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moetron/base/file.h"

namespace moetron {

// The format's codes.
enum class TokenType : uint8_t {
  kUint8 = 1,
  kInt8 = 2,
  kInt16 = 3,
  kInt32 = 4,
  kInt64 = 5,
  kUint16 = 8,
};

size_t token_type_bytes(TokenType type);
// What Megatron's preprocessing chooses: uint16 below 65500, else int32.
TokenType token_type_for_vocab(int64_t vocab_size);

// Read-only and safe to share between threads. The constructor checks every count, length and
// place against the two files' sizes and throws InputError naming the file.
class IndexedDataset {
 public:
  explicit IndexedDataset(const std::string& prefix);

  const std::string& prefix() const { return prefix_; }
  TokenType type() const { return type_; }
  int64_t num_sequences() const { return num_sequences_; }
  int64_t num_documents() const { return num_documents_; }
  int64_t num_tokens() const { return num_tokens_; }

  int32_t sequence_length(int64_t sequence) const;  // tokens
  // First sequence of a document, 0 <= document <= num_documents().
  int64_t document_start(int64_t document) const;

  // Copies tokens [offset, offset + out.size()) of a sequence. A token that does not fit the type
  // or a file that has been cut short is an InputError; a range outside the sequence an
  // InternalError.
  void get(int64_t sequence, int64_t offset, std::span<int32_t> out) const;

  // The first token of a sequence that is below 0 or not below `vocab_size`; none: all are inside.
  std::optional<int64_t> token_outside(int64_t sequence, int64_t vocab_size) const;

  // XXH3-128 of the .idx file: changes whenever lengths or documents change.
  std::string fingerprint() const;
  // XXH3-128 of the .bin file's size and of some stretches, evenly spaced: a few MiB.
  std::string sample_fingerprint() const;

 private:
  void check_arrays();
  int64_t sequence_pointer(int64_t sequence) const;  // bytes into .bin

  std::string prefix_;
  MappedFile index_;
  MappedFile tokens_;
  TokenType type_ = TokenType::kInt32;
  int64_t num_sequences_ = 0;
  int64_t num_documents_ = 0;
  int64_t num_tokens_ = 0;
  const std::byte* lengths_ = nullptr;
  const std::byte* pointers_ = nullptr;
  const std::byte* documents_ = nullptr;
};

// Writes both files front to back; they appear under their names at commit(), .idx last. A pair
// that is there already stays until both new files are complete and on the disk.
class IndexedDatasetWriter {
 public:
  IndexedDatasetWriter(const std::string& prefix, TokenType type);

  // Throws ConfigError for a token outside the type's range.
  void add_sequence(std::span<const int32_t> tokens);
  void end_document();  // a document without sequences is kept
  int64_t num_sequences() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t num_documents() const { return static_cast<int64_t>(documents_.size()) - 1; }
  int64_t num_tokens() const { return num_tokens_; }
  void commit();

 private:
  void put_in_place();

  TokenType type_;
  std::filesystem::path index_path_;
  FileWriter tokens_;
  FileWriter index_;
  std::vector<int32_t> lengths_;
  std::vector<int64_t> documents_ = {0};
  int64_t num_tokens_ = 0;
  std::string row_;  // tokens of one sequence in the file's type
};

}  // namespace moetron
