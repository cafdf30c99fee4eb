#include "moetron/tokenizer/token_places.h"

#include <algorithm>
#include <functional>
#include <string>

#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

// For each byte of the NFC of `source` (and its end) the byte of `source` behind what it came from.
// A character that does not change under NFC, nor composes with the one before it, begins anew.
std::vector<size_t> ends_before_nfc(std::string_view source, size_t normalized_size) {
  const std::vector<uint8_t>& bits = char_bits_table();
  std::vector<size_t> ends(1, 0);
  std::string storage;
  for (size_t begin = 0; begin < source.size();) {
    size_t end = begin + decode_utf8(source.data() + begin).length;
    while (end < source.size()) {
      const Character next = decode_utf8(source.data() + end);
      if ((bits[next.value] & kNfcActive) == 0) break;
      end += next.length;
    }
    const std::string_view segment = source.substr(begin, end - begin);
    const std::string_view normal = normalize_nfc(segment, storage);
    for (size_t i = 1; i <= normal.size(); ++i)
      ends.push_back(normal.data() == segment.data() ? begin + i : end);
    begin = end;
  }
  ends.resize(normalized_size + 1, source.size());
  return ends;
}

}  // namespace

void TokenPlaces::begin_part(std::string_view source, std::string_view normalized) {
  source_ = source;
  normalized_ = normalized;
  source_ends_.clear();
  if (normalized.data() != source.data()) source_ends_ = ends_before_nfc(source, normalized.size());
  at_ = 0;
  not_in_text_ = 0;
}

void TokenPlaces::begin_piece(std::string_view piece) {
  const std::less_equal<const char*> before;
  const bool is_inside =
      before(normalized_.data(), piece.data()) &&
      before(piece.data() + piece.size(), normalized_.data() + normalized_.size());
  if (is_inside) at_ = static_cast<size_t>(piece.data() - normalized_.data());
  not_in_text_ = is_inside ? 0 : 1;
}

void TokenPlaces::add_bytes(size_t count) {
  const size_t missing = std::min(not_in_text_, count);
  not_in_text_ -= missing;
  add_end(at_ + count - missing);
}

void TokenPlaces::add_token(std::string_view text) {
  add_end(static_cast<size_t>(text.data() - normalized_.data()) + text.size());
}

void TokenPlaces::add_end(size_t normalized_end) {
  at_ = std::min(normalized_end, normalized_.size());
  const size_t end = source_ends_.empty() ? at_ : source_ends_[at_];
  ends_.push_back(static_cast<size_t>(source_.data() - text_) + end);
}

}  // namespace moetron
