// Byte-pair encoding (Sennrich et al., "Neural machine translation of rare words with subword
// units", ACL 2016) over bytes: a piece begins as one token a byte, and the adjacent pair with the
// lowest rank merges, the leftmost of equals first, until no pair merges.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "moetron/tokenizer/merge_table.h"

namespace moetron {

// Lets maps of strings be searched by views.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using TextToId = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

// What one thread needs to encode, with the pieces it met last: words repeat, so most pieces are
// found instead of merged.
class BpeScratch {
 public:
  BpeScratch();

 private:
  friend class Bpe;
  static constexpr size_t kCacheSize = 1 << 15;
  static constexpr size_t kMaxPiece = 38;  // bytes
  // One cache line; a slot's newest piece replaces the one before.
  struct alignas(64) Entry {
    std::array<char, kMaxPiece> piece;
    uint8_t length = 0;  // 0: empty
    uint8_t num_ids = 0;
    std::array<int32_t, 6> ids;
  };
  static_assert(sizeof(Entry) == 64);

  std::unique_ptr<Entry[]> cache_;
  std::vector<int32_t> ids_;    // tokens of the piece at hand
  std::vector<Merge> merges_;   // merges_[i]: of tokens i and i + 1 (or of i and next_[i])
  std::vector<uint32_t> next_;  // the heap's linked list of living tokens
  std::vector<uint32_t> before_;
  std::vector<uint64_t> heap_;  // rank << 32 | place, smallest first
};

class Bpe {
 public:
  Bpe() { byte_ids_.fill(-1); }  // knows no token
  // byte_ids[b] is the token of byte b, or -1: such bytes are dropped, as in the library.
  // `whole_pieces` (the bytes of every token, or nothing) are taken before any merge.
  Bpe(const std::array<int32_t, 256>& byte_ids, MergeTable merges, TextToId whole_pieces);

  // Appends the tokens of one piece.
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& out) const;

 private:
  void merge_piece(std::string_view piece, BpeScratch& scratch) const;
  void merge_by_scan(BpeScratch& scratch) const;
  void merge_by_heap(BpeScratch& scratch) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Merge> byte_merges_;  // [256, 256], of the tokens of two bytes
  MergeTable merges_;
  TextToId whole_pieces_;
};

}  // namespace moetron
