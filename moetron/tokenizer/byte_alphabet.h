// The byte alphabet of GPT-2: in a tokenizer.json every byte of a token is written as one printable
// character. Bytes 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF stand for themselves (as code points); the 68
// others, ascending, are U+0100 and up, so a space is U+0120.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace moetron {

// The character of a byte, as UTF-8.
std::string alphabet_character(uint8_t byte);

// The bytes that a token stands for; as in the library, a token with any character outside the
// alphabet stands for its own UTF-8.
std::string alphabet_to_bytes(std::string_view token);

// True if every character of the token belongs to the alphabet.
bool is_alphabet_token(std::string_view token);

}  // namespace moetron
