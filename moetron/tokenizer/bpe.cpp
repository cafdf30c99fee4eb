#include "moetron/tokenizer/bpe.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Up to so many bytes, scanning for the lowest rank beats a heap.
constexpr size_t kMaxScan = 48;
constexpr uint32_t kNone = UINT32_MAX;

}  // namespace

BpeScratch::BpeScratch() : cache_(std::make_unique<Entry[]>(kCacheSize)) {}

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, MergeTable merges, TextToId whole_pieces)
    : byte_ids_(byte_ids),
      byte_merges_(256 * 256),
      merges_(std::move(merges)),
      whole_pieces_(std::move(whole_pieces)) {
  for (int left = 0; left < 256; ++left) {
    for (int right = 0; right < 256; ++right) {
      if (byte_ids_[left] < 0 || byte_ids_[right] < 0) continue;
      byte_merges_[left * 256 + right] = merges_.find(byte_ids_[left], byte_ids_[right]);
    }
  }
}

void Bpe::encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& out) const {
  BpeScratch::Entry* entry = nullptr;
  if (piece.size() <= BpeScratch::kMaxPiece) {
    const size_t hash = std::hash<std::string_view>()(piece);
    entry = &scratch.cache_[hash % BpeScratch::kCacheSize];
    if (entry->length == piece.size() &&
        std::memcmp(entry->piece.data(), piece.data(), piece.size()) == 0) {
      out.insert(out.end(), entry->ids.begin(), entry->ids.begin() + entry->num_ids);
      return;
    }
  }
  const auto whole = whole_pieces_.find(piece);
  if (whole != whole_pieces_.end()) {
    scratch.ids_.assign(1, whole->second);
  } else {
    merge_piece(piece, scratch);
  }
  const std::vector<int32_t>& ids = scratch.ids_;
  out.insert(out.end(), ids.begin(), ids.end());
  if (entry != nullptr && ids.size() <= entry->ids.size()) {
    std::copy(piece.begin(), piece.end(), entry->piece.begin());
    entry->length = static_cast<uint8_t>(piece.size());
    entry->num_ids = static_cast<uint8_t>(ids.size());
    std::copy(ids.begin(), ids.end(), entry->ids.begin());
  }
}

void Bpe::merge_piece(std::string_view piece, BpeScratch& scratch) const {
  MT_CHECK_INPUT(piece.size() < kNone, "a piece of text of ", piece.size(),
                 " bytes is too long to tokenize: the limit is 4 GiB");
  scratch.ids_.clear();
  scratch.merges_.clear();
  int before = -1;  // the byte before, of those that have a token
  for (const char c : piece) {
    const int byte = static_cast<uint8_t>(c);
    if (byte_ids_[byte] < 0) continue;
    scratch.ids_.push_back(byte_ids_[byte]);
    if (before >= 0) scratch.merges_.push_back(byte_merges_[before * 256 + byte]);
    before = byte;
  }
  scratch.merges_.emplace_back();  // the last token has nothing to merge with
  if (scratch.ids_.size() <= kMaxScan) {
    merge_by_scan(scratch);
  } else {
    merge_by_heap(scratch);
  }
}

void Bpe::merge_by_scan(BpeScratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids_;
  std::vector<Merge>& merges = scratch.merges_;
  while (ids.size() > 1) {
    size_t best = 0;
    for (size_t i = 1; i < merges.size(); ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == Merge::kNoRank) return;
    ids[best] = merges[best].id;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
    merges.erase(merges.begin() + static_cast<ptrdiff_t>(best));
    merges[best] = best + 1 < ids.size() ? merges_.find(ids[best], ids[best + 1]) : Merge{};
    if (best > 0) merges[best - 1] = merges_.find(ids[best - 1], ids[best]);
  }
}

void Bpe::merge_by_heap(BpeScratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids_;  // -1: merged into the token before
  std::vector<Merge>& merges = scratch.merges_;
  std::vector<uint64_t>& heap = scratch.heap_;
  const auto size = static_cast<uint32_t>(ids.size());
  scratch.next_.resize(size);
  scratch.before_.resize(size);
  heap.clear();
  const auto candidate = [&](uint32_t i) { return uint64_t{merges[i].rank} << 32 | i; };
  for (uint32_t i = 0; i < size; ++i) {
    scratch.next_[i] = i + 1 < size ? i + 1 : kNone;
    scratch.before_[i] = i > 0 ? i - 1 : kNone;
    if (merges[i].rank != Merge::kNoRank) heap.push_back(candidate(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto renew = [&](uint32_t i) {
    const uint32_t next = scratch.next_[i];
    merges[i] = next != kNone ? merges_.find(ids[i], ids[next]) : Merge{};
    if (merges[i].rank == Merge::kNoRank) return;
    heap.push_back(candidate(i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto i = static_cast<uint32_t>(top);
    if (ids[i] < 0 || top != candidate(i)) continue;  // one of the pair has changed since
    const uint32_t gone = scratch.next_[i];
    ids[i] = merges[i].id;
    ids[gone] = -1;
    scratch.next_[i] = scratch.next_[gone];
    if (scratch.next_[i] != kNone) scratch.before_[scratch.next_[i]] = i;
    renew(i);
    if (scratch.before_[i] != kNone) renew(scratch.before_[i]);
  }
  std::erase(ids, -1);
}

}  // namespace moetron
