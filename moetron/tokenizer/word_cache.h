// The tokens of words that were met before, for all threads of a tokenizer. Words are added and
// never changed, so a word is read without a lock; a table that has filled is followed by one four
// times as large, and the largest one by an empty one.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "moetron/tokenizer/zeroed_memory.h"

namespace moetron {

// Mixes two words of 64 bits into one, by the product of 128 bits.
inline uint64_t mix_hash(uint64_t a, uint64_t b) {
  const auto product =
      static_cast<unsigned __int128>(a ^ 0x9E3779B97F4A7C15ULL) * (b ^ 0xD1B54A32D192ED03ULL);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Up to 15 bytes as two numbers; the last byte is the length, so that no word is {0, 0}.
struct ShortWord {
  static constexpr size_t kMaxBytes = 15;
  uint64_t low;
  uint64_t high;

  // `readable_end`: up to there memory behind the word may be read; null if nothing is known of it.
  ShortWord(std::string_view word, const char* readable_end) {
    static_assert(std::endian::native == std::endian::little);
    std::array<uint64_t, 2> bytes{};
    const auto size = static_cast<unsigned>(word.size());
    if (readable_end - word.data() >= 16 && readable_end != nullptr) {
      std::memcpy(bytes.data(), word.data(), 16);
      const uint64_t low_mask = size >= 8 ? ~uint64_t{0} : (uint64_t{1} << 8 * size) - 1;
      const uint64_t high_mask = size <= 8 ? 0 : (uint64_t{1} << 8 * (size - 8)) - 1;
      bytes[0] &= low_mask;
      bytes[1] &= high_mask;
    } else {
      std::memcpy(bytes.data(), word.data(), size);
    }
    low = bytes[0];
    high = bytes[1] | uint64_t{size} << 56;
  }
  uint64_t hash() const { return mix_hash(low, high); }
};

// An open-addressing table of entries, each with an atomic `tag`: 0 is free, kBusy is being
// written; an entry may be read once its tag is another.
template <class Entry>
class WordTable {
 public:
  static constexpr uint64_t kBusy = UINT64_MAX;
  explicit WordTable(size_t size)  // a power of 2
      : memory_(size * sizeof(Entry)), mask_(size - 1) {}

  size_t size() const { return mask_ + 1; }
  bool is_full() const { return num_used_.load(std::memory_order_relaxed) > size() / 2; }
  void prefetch(uint64_t hash) const {
    const char* entry = reinterpret_cast<const char*>(entries() + (hash & mask_));
    for (size_t line = 0; line < sizeof(Entry); line += 64) __builtin_prefetch(entry + line);
  }

  // `is_same` looks at an entry whose tag is the one that is looked for.
  template <class IsSame>
  const Entry* find(uint64_t hash, uint64_t tag, IsSame is_same) const {
    for (size_t i = 0; i < kMaxProbes; ++i) {
      const Entry& entry = entries()[(hash + i) & mask_];
      const uint64_t found = entry.tag.load(std::memory_order_acquire);
      if (found == tag && is_same(entry)) return &entry;
      if (found == 0) return nullptr;
    }
    return nullptr;
  }

  // Where the word's neighbours are taken it is left out. Two threads may add a word twice; it
  // means the same.
  template <class Write>
  void add(uint64_t hash, uint64_t tag, Write write) {
    for (size_t i = 0; i < kMaxProbes; ++i) {
      Entry& entry = entries()[(hash + i) & mask_];
      uint64_t free = 0;
      if (!entry.tag.compare_exchange_strong(free, kBusy, std::memory_order_relaxed)) continue;
      write(entry);
      entry.tag.store(tag, std::memory_order_release);
      num_used_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
  }

  Entry* entries() const { return static_cast<Entry*>(memory_.data()); }

 private:
  static constexpr size_t kMaxProbes = 8;
  ZeroedMemory memory_;
  size_t mask_;
  std::atomic<size_t> num_used_ = 0;
};

// The tag is the high number of the word. The count of tokens is in the top byte of the first: ids
// have 21 bits.
struct alignas(32) ShortEntry {
  static constexpr size_t kMaxIds = 4;
  std::atomic<uint64_t> tag;
  uint64_t low;
  std::array<uint32_t, kMaxIds> ids;

  uint64_t hash() const { return mix_hash(low, tag.load(std::memory_order_relaxed)); }
};

// A longer word, or one of more tokens: the tag is its hash. `record` is a LongWord.
struct LongEntry {
  std::atomic<uint64_t> tag;
  const uint8_t* record;

  uint64_t hash() const { return tag.load(std::memory_order_relaxed); }
};
static_assert(sizeof(ShortEntry) == 32 && sizeof(LongEntry) == 16);

// Its bytes follow, then its ids.
struct LongWord {
  static constexpr size_t kMaxBytes = 255;
  static constexpr size_t kMaxIds = 255;
  uint8_t length;
  uint8_t num_ids;
};

// Memory that is given out piece by piece and never back.
class WordArena {
 public:
  uint8_t* take(size_t size);
  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
  static constexpr size_t kBlock = 1 << 18;
  size_t used_ = kBlock;  // of the last block
  std::atomic<size_t> size_ = 0;
};

class WordCache {
 public:
  // What a thread holds while it reads; renewed where a larger table has taken the place of one.
  struct View {
    std::shared_ptr<WordTable<ShortEntry>> short_words;
    std::shared_ptr<WordTable<LongEntry>> long_words;
    std::shared_ptr<WordArena> arena;  // of the long words
    uint64_t version = 0;
  };

  WordCache();
  void renew(View& view) {
    if (view.version != version_.load(std::memory_order_acquire)) replace(view);
  }

  // Copies the tokens to `ids`, which has room for LongWord::kMaxIds; 0 if the word is not known.
  static size_t find(const View& view, ShortWord word, uint64_t hash, int32_t* ids) {
    const auto* entry = view.short_words->find(
        hash, word.high, [&](const ShortEntry& other) { return other.low == word.low; });
    if (entry == nullptr) return 0;
    const uint32_t count = entry->ids[0] >> 24;
    std::memcpy(ids, entry->ids.data(), sizeof(entry->ids));
    ids[0] &= 0xFFFFFF;
    return count;
  }
  // Of a word that is long, or has many tokens. `hash`: of the ShortWord or, where it is longer,
  // long_hash().
  static size_t find(const View& view, std::string_view word, uint64_t hash, int32_t* ids);
  // Of a word that is not in the view. What has too many bytes or tokens is left out.
  void add(const View& view, std::string_view word, uint64_t hash, std::span<const int32_t> ids);

  static uint64_t long_hash(std::string_view word);  // of 16 bytes at least

 private:
  void replace(View& view);
  void grow_short(const View& view);
  void grow_long(const View& view);

  std::mutex mutex_;  // of the pointers
  std::shared_ptr<WordTable<ShortEntry>> short_words_;
  std::shared_ptr<WordTable<LongEntry>> long_words_;
  std::shared_ptr<WordArena> arena_;
  std::atomic<uint64_t> version_ = 1;
};

// The hash that a word is looked up with.
inline uint64_t word_hash(std::string_view word) {
  return word.size() <= ShortWord::kMaxBytes ? ShortWord(word, nullptr).hash()
                                             : WordCache::long_hash(word);
}

}  // namespace moetron
