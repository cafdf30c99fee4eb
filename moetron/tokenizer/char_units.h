// What a word begins as in BPE over characters: their tokens, or those of their bytes, or the token
// of what is unknown.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace moetron {

// Lets maps of strings be searched by views.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using TextToId = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

// Units of a word below this are bytes; others are ids, so many higher.
constexpr int32_t kNumByteUnits = 256;

struct CharUnitOptions {
  std::string prefix;  // before every character but a word's first, in the vocabulary
  std::string suffix;  // behind a word's last
  std::optional<int32_t> unknown;
  bool fuses_unknown = false;  // neighbours that are unknown are one
  bool byte_fallback = false;  // "<0xE4>" and the like, where there is one for each byte
};

class CharUnits {
 public:
  CharUnits(const TextToId& ids, CharUnitOptions options);

  // Appends the word's units (valid UTF-8), and the byte of the word behind each.
  void read(std::string_view word, std::vector<int32_t>& units, std::vector<uint32_t>& ends) const;

 private:
  int32_t find(char32_t character, bool is_first, bool is_last) const;
  bool read_bytes(std::string_view written, std::vector<int32_t>& units) const;
  std::string written(std::string_view character, bool is_first, bool is_last) const;

  CharUnitOptions options_;
  // By code point, of characters as the first, the last, both, or none of a word; one where the
  // vocabulary makes no difference.
  std::vector<std::vector<int32_t>> ids_;
  std::array<int32_t, 256> byte_ids_;
};

}  // namespace moetron
