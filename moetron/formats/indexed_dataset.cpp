#include "moetron/formats/indexed_dataset.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/hash.h"

namespace moetron {
namespace {

constexpr std::string_view kIndexMagic("MMIDIDX\x00\x00", 9);
constexpr uint64_t kIndexVersion = 1;
constexpr uint64_t kHeaderBytes = 34;  // magic, version, type code, two counts

// The arrays follow one another without padding, so no element may be assumed aligned.
template <class T>
T load(const std::byte* from, int64_t index = 0) {
  T value;
  std::memcpy(&value, from + static_cast<size_t>(index) * sizeof(T), sizeof(T));
  return value;
}

bool is_known_type(uint8_t code) {
  return (code >= 1 && code <= 5) || code == static_cast<uint8_t>(TokenType::kUint16);
}

// Calls `work` with a zero of the type.
template <class Work>
void with_type(TokenType type, const Work& work) {
  switch (type) {
    case TokenType::kUint8:
      return work(uint8_t{});
    case TokenType::kInt8:
      return work(int8_t{});
    case TokenType::kInt16:
      return work(int16_t{});
    case TokenType::kInt32:
      return work(int32_t{});
    case TokenType::kInt64:
      return work(int64_t{});
    case TokenType::kUint16:
      return work(uint16_t{});
  }
}

// a * count + b, or nothing when it overflows.
bool add_array(uint64_t count, uint64_t item_bytes, uint64_t* total) {
  uint64_t bytes = 0;
  return !__builtin_mul_overflow(count, item_bytes, &bytes) &&
         !__builtin_add_overflow(*total, bytes, total);
}

}  // namespace

size_t token_type_bytes(TokenType type) {
  switch (type) {
    case TokenType::kUint8:
    case TokenType::kInt8:
      return 1;
    case TokenType::kInt16:
    case TokenType::kUint16:
      return 2;
    case TokenType::kInt32:
      return 4;
    case TokenType::kInt64:
      return 8;
  }
  throw InternalError("unknown token type");
}

TokenType token_type_for_vocab(int64_t vocab_size) {
  return vocab_size < 65500 ? TokenType::kUint16 : TokenType::kInt32;
}

IndexedDataset::IndexedDataset(const std::string& prefix)
    : prefix_(prefix), index_(prefix + ".idx"), tokens_(prefix + ".bin") {
  const std::string name = index_.path().string();
  MT_CHECK_INPUT(index_.size() >= kHeaderBytes && index_.text().starts_with(kIndexMagic), name,
                 " is no Megatron index: it does not begin with MMIDIDX");
  const std::byte* data = index_.bytes().data();
  const auto version = load<uint64_t>(data + 9);
  const auto code = load<uint8_t>(data + 17);
  const auto sequences = load<uint64_t>(data + 18);
  const auto documents = load<uint64_t>(data + 26);
  MT_CHECK_INPUT(version == kIndexVersion, name, " has version ", version, "; version 1 is read");
  MT_CHECK_INPUT(is_known_type(code), name, " has the type code ", int{code},
                 ", which is none of the integer types 1 to 5 and 8");
  type_ = static_cast<TokenType>(code);
  uint64_t expected = kHeaderBytes;
  const bool fits = add_array(sequences, 12, &expected) && add_array(documents, 8, &expected);
  MT_CHECK_INPUT(!fits || index_.size() != expected + sequences || sequences == 0, name,
                 " has a modes array: multimodal datasets are not read");
  MT_CHECK_INPUT(fits && index_.size() == expected, name, " has ", index_.size(),
                 " bytes, but counts ", sequences, " sequences and ", documents,
                 " document indices");
  MT_CHECK_INPUT(documents >= 1, name, " has no document indices");
  num_sequences_ = static_cast<int64_t>(sequences);
  num_documents_ = static_cast<int64_t>(documents) - 1;
  lengths_ = data + kHeaderBytes;
  pointers_ = lengths_ + 4 * sequences;
  documents_ = pointers_ + 8 * sequences;
  check_arrays();
}

// One pass over the index: every later access relies on it.
void IndexedDataset::check_arrays() {
  const std::string name = index_.path().string();
  const auto item_bytes = static_cast<uint64_t>(token_type_bytes(type_));
  uint64_t previous = 0;
  for (int64_t i = 0; i < num_sequences_; ++i) {
    const int32_t length = load<int32_t>(lengths_, i);
    const auto begin = static_cast<uint64_t>(load<int64_t>(pointers_, i));
    MT_CHECK_INPUT(length >= 0, name, ": sequence ", i, " has the length ", length);
    MT_CHECK_INPUT(begin >= previous && begin % item_bytes == 0 && begin <= tokens_.size(), name,
                   ": sequence ", i, " begins at byte ", static_cast<int64_t>(begin), " of ",
                   tokens_.path().string(), ", which has ", tokens_.size());
    const uint64_t bytes = static_cast<uint64_t>(length) * item_bytes;
    MT_CHECK_INPUT(bytes <= tokens_.size() - begin, tokens_.path().string(), " has ",
                   tokens_.size(), " bytes, but sequence ", i, " ends at ", begin + bytes);
    previous = begin;
    num_tokens_ += length;
  }
  for (int64_t d = 0; d <= num_documents_; ++d) {
    const int64_t start = load<int64_t>(documents_, d);
    const int64_t before = d == 0 ? 0 : load<int64_t>(documents_, d - 1);
    const bool in_order = start >= before && start <= num_sequences_ && (d > 0 || start == 0);
    MT_CHECK_INPUT(in_order, name, ": document ", d, " begins at sequence ", start,
                   ", the one before it at ", before);
  }
  const int64_t last = load<int64_t>(documents_, num_documents_);
  MT_CHECK_INPUT(last == num_sequences_, name, ": documents end at sequence ", last, " of ",
                 num_sequences_);
}

int32_t IndexedDataset::sequence_length(int64_t sequence) const {
  MT_CHECK(sequence >= 0 && sequence < num_sequences_, "sequence ", sequence, " of ",
           num_sequences_);
  return load<int32_t>(lengths_, sequence);
}

int64_t IndexedDataset::sequence_pointer(int64_t sequence) const {
  return load<int64_t>(pointers_, sequence);
}

int64_t IndexedDataset::document_start(int64_t document) const {
  MT_CHECK(document >= 0 && document <= num_documents_, "document ", document, " of ",
           num_documents_);
  return load<int64_t>(documents_, document);
}

void IndexedDataset::get(int64_t sequence, int64_t offset, std::span<int32_t> out) const {
  const int64_t length = sequence_length(sequence);
  const auto count = static_cast<int64_t>(out.size());
  MT_CHECK(offset >= 0 && offset <= length && count <= length - offset, "tokens [", offset, ", ",
           offset + count, ") of a sequence of ", length);
  const auto item_bytes = static_cast<int64_t>(token_type_bytes(type_));
  const std::byte* from = tokens_.bytes().data() + sequence_pointer(sequence) + offset * item_bytes;
  const auto widen = [&](auto stored) {
    using Stored = decltype(stored);
    for (int64_t i = 0; i < count; ++i) {
      const auto token = load<Stored>(from, i);
      if constexpr (sizeof(Stored) > sizeof(int32_t))
        MT_CHECK_INPUT(token == static_cast<int32_t>(token), tokens_.path().string(), ": token ",
                       token, " of sequence ", sequence, " does not fit 32 bits");
      out[static_cast<size_t>(i)] = static_cast<int32_t>(token);
    }
  };
  with_type(type_, widen);
  tokens_.check_whole();  // else they may be zeros
}

std::optional<int64_t> IndexedDataset::token_outside(int64_t sequence, int64_t vocab_size) const {
  const int64_t length = sequence_length(sequence);
  const std::byte* from = tokens_.bytes().data() + sequence_pointer(sequence);
  std::optional<int64_t> outside;
  with_type(type_, [&](auto stored) {
    using Stored = decltype(stored);
    Stored least = 0, most = 0;  // in a loop without branches: as fast as memory is
    for (int64_t i = 0; i < length; ++i) {
      const auto token = load<Stored>(from, i);
      least = std::min(least, token);
      most = std::max(most, token);
    }
    if (std::cmp_greater_equal(least, 0) && std::cmp_less(most, vocab_size)) return;
    for (int64_t i = 0; i < length && !outside; ++i) {
      const auto token = static_cast<int64_t>(load<Stored>(from, i));
      if (token < 0 || token >= vocab_size) outside = token;
    }
  });
  return outside;
}

std::string IndexedDataset::fingerprint() const {
  return hash_hex(index_.bytes());
}

std::string IndexedDataset::sample_fingerprint() const {
  constexpr size_t kStretches = 64, kStretchBytes = 64 << 10;
  const std::span<const std::byte> all = tokens_.bytes();
  std::string hashes = std::to_string(all.size());
  if (all.size() <= kStretches * kStretchBytes) {
    hashes += hash_hex(all);
  } else {
    const size_t last = all.size() - kStretchBytes;  // where the last stretch begins
    for (size_t i = 0; i < kStretches; ++i)
      hashes += hash_hex(all.subspan(last / (kStretches - 1) * i, kStretchBytes));
  }
  return hash_hex(std::as_bytes(std::span(hashes)));
}

}  // namespace moetron
