#include "moetron/tokenizer/word_cache.h"

#include <algorithm>

namespace moetron {
namespace {

// Entries: 128 and 64 KiB at first, 128 and 32 MiB at most, with up to 128 MiB of long words.
constexpr size_t kFirst = 1 << 12;
constexpr size_t kMostShort = 1 << 22;
constexpr size_t kMostLong = 1 << 21;
constexpr size_t kMostLongBytes = 128 << 20;
constexpr size_t kGrowth = 4;

uint64_t load_word(const char* bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

uint64_t tag_of(uint64_t hash) {
  return hash == 0 || hash == WordTable<LongEntry>::kBusy ? 1 : hash;
}

// A table four times as large with the same entries, or an empty one where that would be too large.
template <class Entry, class Copy>
std::shared_ptr<WordTable<Entry>> larger_table(const WordTable<Entry>& full, size_t max_size,
                                               Copy copy) {
  if (full.size() >= max_size) return std::make_shared<WordTable<Entry>>(max_size);
  auto larger = std::make_shared<WordTable<Entry>>(std::min(full.size() * kGrowth, max_size));
  for (size_t i = 0; i < full.size(); ++i) {
    const Entry& entry = full.entries()[i];
    const uint64_t tag = entry.tag.load(std::memory_order_acquire);
    if (tag == 0 || tag == WordTable<Entry>::kBusy) continue;
    larger->add(entry.hash(), tag, [&](Entry& to) { copy(entry, to); });
  }
  return larger;
}

}  // namespace

uint8_t* WordArena::take(size_t size) {
  const std::lock_guard lock(mutex_);
  if (used_ + size > kBlock) {
    blocks_.push_back(std::make_unique_for_overwrite<uint8_t[]>(kBlock));
    used_ = 0;
    size_ += kBlock;
  }
  used_ += size;
  return blocks_.back().get() + used_ - size;
}

WordCache::WordCache()
    : short_words_(std::make_shared<WordTable<ShortEntry>>(kFirst)),
      long_words_(std::make_shared<WordTable<LongEntry>>(kFirst)),
      arena_(std::make_shared<WordArena>()) {}

void WordCache::replace(View& view) {
  const std::lock_guard lock(mutex_);
  view = {short_words_, long_words_, arena_, version_.load(std::memory_order_relaxed)};
}

void WordCache::grow_short(const View& view) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock || short_words_ != view.short_words) return;  // another thread does it, or did
  short_words_ =
      larger_table(*view.short_words, kMostShort, [](const ShortEntry& from, ShortEntry& to) {
        to.low = from.low;
        to.ids = from.ids;
      });
  version_.fetch_add(1, std::memory_order_release);
}

void WordCache::grow_long(const View& view) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock || long_words_ != view.long_words) return;
  const bool begins_anew = view.long_words->size() >= kMostLong || arena_->size() > kMostLongBytes;
  long_words_ = larger_table(*view.long_words, begins_anew ? 0 : kMostLong,
                             [](const LongEntry& from, LongEntry& to) { to.record = from.record; });
  if (begins_anew) arena_ = std::make_shared<WordArena>();
  version_.fetch_add(1, std::memory_order_release);
}

size_t WordCache::find(const View& view, std::string_view word, uint64_t hash, int32_t* ids) {
  const auto* entry = view.long_words->find(hash, tag_of(hash), [&](const LongEntry& other) {
    return other.record[0] == word.size() &&
           std::memcmp(other.record + sizeof(LongWord), word.data(), word.size()) == 0;
  });
  if (entry == nullptr) return 0;
  const size_t num_ids = entry->record[1];
  std::memcpy(ids, entry->record + sizeof(LongWord) + word.size(), num_ids * sizeof(int32_t));
  return num_ids;
}

void WordCache::add(const View& view, std::string_view word, uint64_t hash,
                    std::span<const int32_t> ids) {
  if (ids.empty()) return;
  if (word.size() <= ShortWord::kMaxBytes && ids.size() <= ShortEntry::kMaxIds) {
    const ShortWord key(word, nullptr);
    view.short_words->add(hash, key.high, [&](ShortEntry& entry) {
      entry.low = key.low;
      std::copy(ids.begin(), ids.end(), entry.ids.begin());
      entry.ids[0] |= static_cast<uint32_t>(ids.size()) << 24;
    });
    if (view.short_words->is_full()) grow_short(view);
    return;
  }
  if (word.size() > LongWord::kMaxBytes || ids.size() > LongWord::kMaxIds) return;
  uint8_t* record = view.arena->take(sizeof(LongWord) + word.size() + ids.size_bytes());
  const LongWord head{static_cast<uint8_t>(word.size()), static_cast<uint8_t>(ids.size())};
  std::memcpy(record, &head, sizeof(head));
  std::memcpy(record + sizeof(head), word.data(), word.size());
  std::memcpy(record + sizeof(head) + word.size(), ids.data(), ids.size_bytes());
  view.long_words->add(hash, tag_of(hash), [&](LongEntry& entry) { entry.record = record; });
  if (view.long_words->is_full() || view.arena->size() > kMostLongBytes) grow_long(view);
}

uint64_t WordCache::long_hash(std::string_view word) {
  uint64_t hash = word.size();
  const char* p = word.data();
  const char* const last = p + word.size() - 16;  // the last 16 bytes may overlap those before
  for (; p < last; p += 16) hash = mix_hash(load_word(p) ^ hash, load_word(p + 8));
  return mix_hash(load_word(last) ^ hash, load_word(last + 8));
}

}  // namespace moetron
