// Where in a text its tokens end, while it is normalised, cut and encoded.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace moetron {

class TokenPlaces {
 public:
  // `text`: the beginning of the whole text; the places of tokens are appended to `ends`.
  TokenPlaces(const char* text, std::vector<size_t>& ends) : text_(text), ends_(ends) {}

  // What follows is of `source`, a part of the text, which became `normalized` (itself, or its
  // NFC).
  void begin_part(std::string_view source, std::string_view normalized);
  // What follows is of this piece of the normalised part, or of a copy with a space before it.
  void begin_piece(std::string_view piece);
  void add_bytes(size_t count);           // a token of so many bytes of the piece
  void add_token(std::string_view text);  // one that is this part of the normalised text

 private:
  void add_end(size_t normalized_end);

  const char* text_;
  std::vector<size_t>& ends_;
  std::string_view source_;
  std::string_view normalized_;
  std::vector<size_t>
      source_ends_;         // by bytes of the normalised part; empty where it is the source
  size_t at_ = 0;           // of the normalised part
  size_t not_in_text_ = 0;  // bytes of the piece that the part does not have
};

}  // namespace moetron
