// Where the `tokenizers` library and utf8proc follow different versions of Unicode. The library
// takes categories from Unicode 16.0 and normalises by Unicode 9.0; utf8proc 2.8 knows 15.0 for
// both. Ids must be the library's, so the tables of unicode.h are corrected by these lists. They
// were found by asking both about every code point.
#pragma once

#include <cstdint>
#include <span>

namespace moetron {

struct CharRange {
  char32_t first;
  char32_t last;  // included
  uint8_t bits;   // of CharBits; 0 in later_marks()
};

// The characters assigned in Unicode 15.1 and 16.0.
std::span<const CharRange> new_characters();

// Characters newer than Unicode 9.0 that reorder or compose in Unicode 15.0: to the library they
// are like letters, which combining marks do not pass.
std::span<const CharRange> later_marks();

}  // namespace moetron
