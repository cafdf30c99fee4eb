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
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  struct Match {
    int32_t token = -1;  // -1: none
    size_t begin = 0;
    size_t end = 0;
  };
  // A node is what has been read of tokens, the longest end of the text that one begins with (the
  // automaton of Aho and Corasick); the root is node 0.
  struct Node {
    int32_t token = -1;    // that ends here, or the longest that ends what has been read
    uint32_t length = 0;   // of that token
    uint32_t depth = 0;    // bytes from the root
    uint32_t shorter = 0;  // the node to go on from where no token goes on
  };
  void add_token(std::string_view content, int32_t index);
  void link_nodes(std::span<const std::string> contents);
  uint32_t step(uint32_t node, char byte) const;
  size_t next_begin(std::string_view text, size_t from) const;
  Match next_match(std::string_view text, size_t from) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};  // whether a token begins with this byte
  bool has_one_begin_ = false;      // then it is this one, as it mostly is
  char one_begin_ = 0;
  std::unordered_map<uint64_t, uint32_t> edges_;  // node * 256 + byte -> node
  std::vector<Node> nodes_;
};

}  // namespace moetron
