// Where in a text its tokens end, while it is normalised, cut, rewritten and encoded.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace moetron {

class TokenPlaces {
 public:
  // `text`: the beginning of the whole text; the places of tokens are appended to `ends`.
  TokenPlaces(const char* text, std::vector<size_t>& ends) : text_(text), ends_(ends) {}

  // What follows is of `source`, a part of the text, which became `normalized`. `normalized_ends`
  // are a Rewriter's, or empty where it is the source.
  void begin_part(std::string_view source, std::string_view normalized,
                  std::vector<size_t> normalized_ends);
  // What follows, up to end_copy(), is of a rewritten copy of a piece.
  void begin_copy(std::string_view piece, std::string_view copy, std::vector<size_t> copy_ends);
  void end_copy() { texts_.pop_back(); }
  // A token ends in front of this byte of the normalised part, or of the innermost copy.
  void add(const char* end);

 private:
  struct Text {
    std::string_view old;
    const char* begin;  // of the new text
    std::vector<size_t> ends;
  };
  const char* text_;
  std::vector<size_t>& ends_;
  std::vector<Text> texts_;  // each became the next
};

}  // namespace moetron
