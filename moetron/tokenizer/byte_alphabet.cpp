#include "moetron/tokenizer/byte_alphabet.h"

#include <array>

#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr char32_t kAlphabetEnd = 0x100 + 68;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<uint16_t, 256> make_characters() {
  std::array<uint16_t, 256> characters{};
  uint16_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    characters[byte] = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
  }
  return characters;
}

constexpr std::array<int16_t, kAlphabetEnd> make_bytes() {
  std::array<int16_t, kAlphabetEnd> bytes{};
  for (auto& byte : bytes) byte = -1;
  const auto characters = make_characters();
  for (int byte = 0; byte < 256; ++byte) bytes[characters[byte]] = static_cast<int16_t>(byte);
  return bytes;
}

constexpr std::array<uint16_t, 256> kCharacters = make_characters();
constexpr std::array<int16_t, kAlphabetEnd> kBytes = make_bytes();

// False as soon as a character is outside the alphabet.
bool append_bytes(std::string_view token, std::string& bytes) {
  for (size_t i = 0; i < token.size();) {
    const Character c = decode_utf8(token.data() + i);
    if (c.value >= kAlphabetEnd || kBytes[c.value] < 0) return false;
    bytes.push_back(static_cast<char>(kBytes[c.value]));
    i += c.length;
  }
  return true;
}

}  // namespace

std::string alphabet_character(uint8_t byte) {
  const unsigned c = kCharacters[byte];
  if (c < 0x80) return {static_cast<char>(c)};
  return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
}

std::string alphabet_to_bytes(std::string_view token) {
  std::string bytes;
  return append_bytes(token, bytes) ? bytes : std::string(token);
}

bool is_alphabet_token(std::string_view token) {
  std::string bytes;
  return append_bytes(token, bytes);
}

}  // namespace moetron
