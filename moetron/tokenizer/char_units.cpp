#include "moetron/tokenizer/char_units.h"

#include <algorithm>
#include <utility>

#include "moetron/tokenizer/unicode.h"

namespace moetron {

CharUnits::CharUnits(const TextToId& ids, CharUnitOptions options) : options_(std::move(options)) {
  const bool has_places = !options_.prefix.empty() || !options_.suffix.empty();
  ids_.resize(has_places ? 4 : 1);
  for (size_t place = 0; place < ids_.size(); ++place) {
    const bool is_first = (place & 1) != 0;
    const bool is_last = (place & 2) != 0;
    const std::string_view before = is_first ? "" : std::string_view(options_.prefix);
    const std::string_view behind = is_last ? std::string_view(options_.suffix) : "";
    for (const auto& [token, id] : ids) {
      std::string_view text = token;
      if (text.size() <= before.size() + behind.size()) continue;
      if (has_places && (!text.starts_with(before) || !text.ends_with(behind))) continue;
      if (has_places)
        text = text.substr(before.size(), text.size() - before.size() - behind.size());
      const Character c = decode_utf8(text.data());
      if (c.length != text.size()) continue;
      if (c.value >= ids_[place].size()) ids_[place].resize(c.value + c.value / 2 + 1, -1);
      ids_[place][c.value] = id;
    }
  }
  constexpr std::string_view kHex = "0123456789ABCDEF";
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const auto found = ids.find(std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + '>');
    byte_ids_[byte] = found != ids.end() ? found->second : -1;
  }
}

int32_t CharUnits::find(char32_t character, bool is_first, bool is_last) const {
  const size_t place = ids_.size() == 1 ? 0 : (is_first ? 1U : 0U) + (is_last ? 2U : 0U);
  return character < ids_[place].size() ? ids_[place][character] : -1;
}

std::string CharUnits::written(std::string_view character, bool is_first, bool is_last) const {
  std::string text = is_first ? std::string() : options_.prefix;
  text += character;
  if (is_last) text += options_.suffix;
  return text;
}

bool CharUnits::read_bytes(std::string_view text, std::vector<int32_t>& units) const {
  const auto id_of = [&](char byte) { return byte_ids_[static_cast<uint8_t>(byte)]; };
  if (!std::ranges::all_of(text, [&](char byte) { return id_of(byte) >= 0; })) return false;
  for (const char byte : text) units.push_back(kNumByteUnits + id_of(byte));
  return true;
}

void CharUnits::read(std::string_view word, std::vector<int32_t>& units,
                     std::vector<uint32_t>& ends) const {
  uint32_t unknown_end = 0;  // of unknown characters that are not among the units yet, or 0
  const auto give_unknown = [&] {
    if (unknown_end == 0) return;
    units.push_back(kNumByteUnits + *options_.unknown);
    ends.push_back(unknown_end);
    unknown_end = 0;
  };
  for (uint32_t begin = 0, end = 0; begin < word.size(); begin = end) {
    const Character c = decode_utf8(word.data() + begin);
    end = begin + c.length;
    const bool is_first = begin == 0;
    const bool is_last = end == word.size();
    const int32_t id = find(c.value, is_first, is_last);
    if (id >= 0) {
      give_unknown();
      units.push_back(kNumByteUnits + id);
      ends.push_back(end);
      continue;
    }
    if (options_.byte_fallback) {
      const std::string text = written(word.substr(begin, c.length), is_first, is_last);
      // As in the library, what was unknown before comes behind these bytes.
      if (read_bytes(text, units)) {
        for (uint32_t i = 1; ends.size() < units.size(); ++i)
          ends.push_back(std::min(begin + i, end));
        continue;
      }
    }
    if (!options_.unknown) continue;
    if (!options_.fuses_unknown) give_unknown();
    unknown_end = end;
  }
  give_unknown();
}

}  // namespace moetron
