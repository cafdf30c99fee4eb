// Added tokens (such as <|im_start|>) cut out of a text, leftmost first and longest among those
// that begin together, as the `tokenizers` library does it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace moetron {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // only where neither neighbour is a word character
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // is looked for after normalisation, not before
  bool special = false;      // decode() can leave it out
};

// A part of a text: an added token, or text between added tokens (id < 0).
struct TextPart {
  int32_t id;
  std::string_view text;
};

class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  // `contents` are what is looked for, one for each token (their normalised form, or as they are).
  AddedTokenFinder(std::span<const AddedToken> tokens, std::span<const std::string> contents);

  // Appends the parts of valid UTF-8 text in order; no part is empty.
  void split(std::string_view text, std::vector<TextPart>& parts) const;

 private:
  struct Match {
    int32_t token = -1;  // -1: no token begins here
    size_t length = 0;
  };
  Match longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};                // whether a token begins with this byte
  std::unordered_map<uint64_t, uint32_t> edges_;  // node * 256 + byte -> node; the root is node 0
  std::vector<int32_t> token_at_;                 // the token that ends at a node, or -1
};

}  // namespace moetron
