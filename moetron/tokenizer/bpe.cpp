#include "moetron/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/tokenizer/unicode.h"
#include "moetron/tokenizer/word_batch.h"

namespace moetron {
namespace {

// Up to so many units, scanning for the lowest rank beats a heap: as many as a number has bits.
constexpr size_t kMaxScan = 64;
constexpr int kPlaceBits = 6;
constexpr int kNumBytes = kNumByteUnits;
constexpr uint32_t kNothing = MergeTable::kNoRank << kPlaceBits;  // the least key of no merge
static_assert(MergeTable::kRankBits + kPlaceBits < 32);           // a key is positive as an int32_t
// A longer word is merged in parts of so many units, whose arrays lie in the fastest cache.
constexpr uint32_t kWindow = 512;
constexpr uint32_t kNone = UINT32_MAX;

// The compiler makes the machine's vectors of it, whatever they are.
using Lanes = int32_t __attribute__((vector_size(16)));
constexpr size_t kLanes = 4;

Lanes smaller(Lanes a, Lanes b) {
  return a < b ? a : b;
}

// Of a multiple of 8 numbers.
uint32_t smallest(const uint32_t* keys, size_t size) {
  const auto load = [&](size_t i) {
    Lanes lanes;
    std::memcpy(&lanes, keys + i, sizeof(lanes));
    return lanes;
  };
  Lanes even = load(0);
  Lanes odd = load(kLanes);
  for (size_t i = 2 * kLanes; i < size; i += 2 * kLanes) {
    even = smaller(even, load(i));
    odd = smaller(odd, load(i + kLanes));
  }
  even = smaller(even, odd);
  return static_cast<uint32_t>(std::min(std::min(even[0], even[1]), std::min(even[2], even[3])));
}

}  // namespace

void TokenRun::clear() {
  ids.clear();
  begins.clear();
}

void TokenRun::append(const TokenRun& other, size_t from) {
  ids.insert(ids.end(), other.ids.begin() + static_cast<ptrdiff_t>(from), other.ids.end());
  begins.insert(begins.end(), other.begins.begin() + static_cast<ptrdiff_t>(from),
                other.begins.end());
}

void TokenRun::truncate(size_t size) {
  ids.resize(size);
  begins.resize(size);
}

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, std::span<const MergeRule> rules,
         const TextToId& whole_words)
    : byte_ids_(byte_ids),
      byte_merges_(kNumBytes * kNumBytes, MergeTable::kNoRank),
      merges_(rules.size()),
      whole_words_(whole_words),
      cache_(std::make_unique<WordCache>()) {
  for (const MergeRule& rule : rules) merges_.insert(rule.left, rule.right, rule.merged);
  char_tokens_ = CharTokens(byte_ids, rules, merges_);
  for (int left = 0; left < kNumBytes; ++left) {
    for (int right = 0; right < kNumBytes; ++right) {
      if (byte_ids_[left] < 0 || byte_ids_[right] < 0) continue;
      byte_merges_[left * kNumBytes + right] = merges_.find(byte_ids_[left], byte_ids_[right]);
    }
  }
}

Bpe::Bpe(CharUnits characters, std::span<const MergeRule> rules, const TextToId& whole_words)
    : merges_(rules.size()),
      characters_(std::move(characters)),
      whole_words_(whole_words),
      cache_(std::make_unique<WordCache>()) {
  byte_ids_.fill(-1);
  for (const MergeRule& rule : rules) merges_.insert(rule.left, rule.right, rule.merged);
}

void Bpe::encode(std::span<const std::string_view> words, const char* readable_end,
                 BpeScratch& scratch, std::vector<int32_t>& out) const {
  cache_->renew(scratch.view_);
  const WordCache::View& view = scratch.view_;
  std::array<uint64_t, WordBatch::kMaxWords> hashes;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].size() <= ShortWord::kMaxBytes) {
      hashes[i] = ShortWord(words[i], readable_end).hash();
      view.short_words->prefetch(hashes[i]);
    } else {
      hashes[i] = WordCache::long_hash(words[i]);
      view.long_words->prefetch(hashes[i]);
    }
  }
  std::array<int32_t, 4 * LongWord::kMaxIds> ids;
  size_t size = 0;
  const auto give = [&] {
    out.insert(out.end(), ids.begin(), ids.begin() + static_cast<ptrdiff_t>(size));
    size = 0;
  };
  for (size_t i = 0; i < words.size(); ++i) {
    if (size + LongWord::kMaxIds > ids.size()) give();
    const std::string_view word = words[i];
    size_t count = 0;
    if (word.size() <= ShortWord::kMaxBytes)
      count = WordCache::find(view, ShortWord(word, readable_end), hashes[i], ids.data() + size);
    if (count == 0) count = WordCache::find(view, word, hashes[i], ids.data() + size);
    size += count;
    if (count > 0) continue;
    encode_new(word, hashes[i], scratch);
    const std::vector<int32_t>& found = scratch.tokens_.ids;
    cache_->add(view, word, hashes[i], found);
    give();
    out.insert(out.end(), found.begin(), found.end());
  }
  give();
}

void Bpe::encode_placed(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& out,
                        std::vector<uint32_t>& ends) const {
  encode_new(word, word_hash(word), scratch, true);
  const TokenRun& tokens = scratch.tokens_;
  out.insert(out.end(), tokens.ids.begin(), tokens.ids.end());
  if (tokens.begins.empty()) {  // a whole word
    if (!tokens.ids.empty()) ends.push_back(static_cast<uint32_t>(word.size()));
    return;
  }
  for (size_t i = 1; i < tokens.begins.size(); ++i)
    ends.push_back(scratch.unit_ends_[tokens.begins[i] - 1]);
  ends.push_back(scratch.unit_ends_.back());
}

void Bpe::encode_new(std::string_view word, uint64_t hash, BpeScratch& scratch,
                     bool with_ends) const {
  scratch.tokens_.clear();
  const int32_t whole = whole_words_.find(word, hash);
  if (whole >= 0) return scratch.tokens_.ids.push_back(whole);
  MT_CHECK_INPUT(word.size() < kNone, "a word of ", word.size(),
                 " bytes is too long to tokenize: the limit is 4 GiB");
  scratch.units_.clear();
  scratch.unit_ends_.clear();
  if (characters_) {
    characters_->read(word, scratch.units_, scratch.unit_ends_);
  } else {
    read_bytes(word, scratch, with_ends);
  }
  if (scratch.units_.size() <= kMaxScan) return merge_by_scan(scratch.units_, 0, scratch.tokens_);
  merge_long(scratch);
}

void Bpe::read_bytes(std::string_view word, BpeScratch& scratch, bool with_ends) const {
  const char* const word_end = word.data() + word.size();
  const auto add = [&](int32_t unit, const char* end) {
    scratch.units_.push_back(unit);
    if (with_ends) scratch.unit_ends_.push_back(static_cast<uint32_t>(end - word.data()));
  };
  bool is_behind_ascii = false;
  for (const char* p = word.data(); p < word_end;) {
    if (static_cast<uint8_t>(*p) < 0x80) {
      is_behind_ascii = true;
      if (byte_ids_[static_cast<uint8_t>(*p)] >= 0) add(*p, p + 1);
      ++p;
      continue;
    }
    const Character c = decode_utf8(p);
    const char* const end = p + c.length;
    const bool is_beside_ascii =
        is_behind_ascii || (end < word_end && static_cast<uint8_t>(*end) < 0x80);
    is_behind_ascii = false;
    const int32_t id = is_beside_ascii ? -1 : char_tokens_.find(c.value);
    if (id >= 0) add(kNumBytes + id, end);
    for (; p < end; ++p) {
      const auto byte = static_cast<uint8_t>(*p);
      if (id < 0 && byte_ids_[byte] >= 0) add(byte, p + 1);
    }
  }
}

int32_t Bpe::unit_id(int32_t unit) const {
  return unit < kNumBytes ? byte_ids_[unit] : unit - kNumBytes;
}

uint32_t Bpe::unit_rank(int32_t left, int32_t right) const {
  if (left < kNumBytes && right < kNumBytes) return byte_merges_[left * kNumBytes + right];
  return merges_.find(unit_id(left), unit_id(right));
}

// Tokens are those of the word if and only if any two neighbours, merged by themselves, give those
// two again: no merge ever crosses a border between final tokens, and the first that would cross
// one would also be made of the two alone, where the merges come in the same order. So parts are
// merged by themselves, and what lies around their borders again, until neighbours agree.
void Bpe::merge_long(BpeScratch& scratch) const {
  const auto size = static_cast<uint32_t>(scratch.units_.size());
  for (uint32_t begin = 0; begin < size; begin += std::min(kWindow, size - begin)) {
    const uint32_t end = begin + std::min(kWindow, size - begin);
    scratch.window_.clear();
    merge_range(begin, end, scratch, scratch.window_);
    join(end, scratch);
  }
}

// Appends the window, which ends at `end`, to the tokens before it.
void Bpe::join(uint32_t end, BpeScratch& scratch) const {
  TokenRun& tokens = scratch.tokens_;
  const TokenRun& window = scratch.window_;
  TokenRun& seam = scratch.seam_;
  const auto begin_of = [end](const TokenRun& run, size_t i, uint32_t behind) {
    return i < run.begins.size() ? run.begins[i] : std::min(behind, end);
  };
  // Whether the seam, up to the window's token `last`, agrees with what lies around it.
  const auto fits = [&](size_t first, size_t last) {
    const uint32_t behind = begin_of(window, last, end);
    if (first > 0 &&
        !is_pair(tokens.begins[first - 1], seam.begins[0], begin_of(seam, 1, behind), scratch)) {
      return false;
    }
    return last == window.ids.size() ||
           is_pair(seam.begins.back(), behind, begin_of(window, last + 1, end), scratch);
  };
  if (tokens.ids.empty() ||
      is_pair(tokens.begins.back(), window.begins[0], begin_of(window, 1, end), scratch)) {
    return tokens.append(window, 0);
  }
  for (size_t around = 2;; around *= 2) {
    const size_t first = tokens.ids.size() - std::min(around, tokens.ids.size());
    const size_t last = std::min(around, window.ids.size());
    seam.clear();
    merge_range(tokens.begins[first], begin_of(window, last, end), scratch, seam);
    if (!fits(first, last)) continue;
    tokens.truncate(first);
    tokens.append(seam, 0);
    return tokens.append(window, last);
  }
}

// Whether the units, merged by themselves, are two tokens with this border.
bool Bpe::is_pair(uint32_t begin, uint32_t border, uint32_t end, BpeScratch& scratch) const {
  scratch.pair_.clear();
  merge_range(begin, end, scratch, scratch.pair_);
  return scratch.pair_.begins.size() == 2 && scratch.pair_.begins[1] == border;
}

void Bpe::merge_range(uint32_t begin, uint32_t end, BpeScratch& scratch, TokenRun& out) const {
  const std::span<const int32_t> units(scratch.units_.data() + begin, end - begin);
  if (units.size() <= kMaxScan) return merge_by_scan(units, begin, out);
  merge_by_heap(units, begin, scratch, out);
}

// keys[i] is of the tokens that begin with unit i and the next living one: rank, then place, so
// that the smallest is the leftmost of the lowest rank.
void Bpe::merge_by_scan(std::span<const int32_t> units, uint32_t begin, TokenRun& out) const {
  const size_t size = units.size();
  if (size == 0) return;
  alignas(16) std::array<uint32_t, kMaxScan> keys;
  std::array<int32_t, kMaxScan> ids;
  const auto make_key = [](uint32_t rank, size_t i) {
    return rank << kPlaceBits | static_cast<uint32_t>(i);
  };
  const size_t padded = (size + 7) / 8 * 8;
  for (size_t i = size - 1; i < padded; ++i) keys[i] = kNothing;
  for (size_t i = 0; i + 1 < size; ++i) keys[i] = make_key(unit_rank(units[i], units[i + 1]), i);
  for (size_t i = 0; i < size; ++i) ids[i] = unit_id(units[i]);
  uint64_t living = size == kMaxScan ? ~uint64_t{0} : (uint64_t{1} << size) - 1;
  for (uint32_t key = 0; (key = smallest(keys.data(), padded)) < kNothing;) {
    const size_t i = key % kMaxScan;
    const uint64_t behind = living & (~uint64_t{1} << i);
    const uint64_t before = living & ((uint64_t{1} << i) - 1);
    const auto gone = static_cast<size_t>(std::countr_zero(behind));
    const uint64_t next = behind & (behind - 1);
    living ^= uint64_t{1} << gone;
    keys[gone] = kNothing;
    ids[i] = merges_.merged(key >> kPlaceBits);
    keys[i] = kNothing;
    if (next != 0)
      keys[i] = make_key(merges_.find(ids[i], ids[static_cast<size_t>(std::countr_zero(next))]), i);
    if (before == 0) continue;
    const auto left = static_cast<size_t>(63 - std::countl_zero(before));
    keys[left] = make_key(merges_.find(ids[left], ids[i]), left);
  }
  for (; living != 0; living &= living - 1) {
    const auto i = static_cast<uint32_t>(std::countr_zero(living));
    out.ids.push_back(ids[i]);
    out.begins.push_back(begin + i);
  }
}

void Bpe::merge_by_heap(std::span<const int32_t> units, uint32_t begin, BpeScratch& scratch,
                        TokenRun& out) const {
  std::vector<int32_t>& ids = scratch.ids_;
  std::vector<uint32_t>& ranks = scratch.ranks_;
  std::vector<uint64_t>& heap = scratch.heap_;
  const auto size = static_cast<uint32_t>(units.size());
  ids.resize(size);
  ranks.resize(size);
  scratch.next_.resize(size);
  scratch.before_.resize(size);
  heap.clear();
  const auto candidate = [&](uint32_t i) { return uint64_t{ranks[i]} << 32 | i; };
  for (uint32_t i = 0; i < size; ++i) {
    ids[i] = unit_id(units[i]);
    ranks[i] = i + 1 < size ? unit_rank(units[i], units[i + 1]) : MergeTable::kNoRank;
    scratch.next_[i] = i + 1 < size ? i + 1 : kNone;
    scratch.before_[i] = i > 0 ? i - 1 : kNone;
    if (ranks[i] != MergeTable::kNoRank) heap.push_back(candidate(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto renew = [&](uint32_t i) {
    const uint32_t next = scratch.next_[i];
    ranks[i] = next != kNone ? merges_.find(ids[i], ids[next]) : MergeTable::kNoRank;
    if (ranks[i] == MergeTable::kNoRank) return;
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
    ids[i] = merges_.merged(ranks[i]);
    ids[gone] = -1;
    scratch.next_[i] = scratch.next_[gone];
    if (scratch.next_[i] != kNone) scratch.before_[scratch.next_[i]] = i;
    renew(i);
    if (scratch.before_[i] != kNone) renew(scratch.before_[i]);
  }
  for (uint32_t i = 0; i != kNone; i = scratch.next_[i]) {
    out.ids.push_back(ids[i]);
    out.begins.push_back(begin + i);
  }
}

}  // namespace moetron
