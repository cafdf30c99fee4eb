#include "moetron/tokenizer/added_tokens.h"

#include <algorithm>

#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

bool is_space(char32_t c) {
  return (char_bits_table()[c] & kSpace) != 0;
}

// The place where the white space that ends before `end` begins.
size_t space_begin(std::string_view text, size_t end) {
  while (end > 0) {
    const Character c = decode_utf8_before(text.data() + end);
    if (!is_space(c.value)) break;
    end -= c.length;
  }
  return end;
}

size_t space_end(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Character c = decode_utf8(text.data() + begin);
    if (!is_space(c.value)) break;
    begin += c.length;
  }
  return begin;
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word_character(decode_utf8_before(text.data() + begin).value)) return false;
  return end == text.size() || !is_word_character(decode_utf8(text.data() + end).value);
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::span<const AddedToken> tokens,
                                   std::span<const std::string> contents)
    : tokens_(tokens.begin(), tokens.end()), token_at_(1, -1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (contents[i].empty()) continue;  // cannot be found in a text
    begins_[static_cast<uint8_t>(contents[i][0])] = true;
    uint32_t node = 0;
    for (const char byte : contents[i]) {
      const uint64_t edge = uint64_t{node} * 256 + static_cast<uint8_t>(byte);
      const auto [found, is_new] = edges_.emplace(edge, static_cast<uint32_t>(token_at_.size()));
      if (is_new) token_at_.push_back(-1);
      node = found->second;
    }
    // Two tokens may be the same after normalisation; the first is the one that is found.
    if (token_at_[node] < 0) token_at_[node] = static_cast<int32_t>(i);
  }
}

AddedTokenFinder::Match AddedTokenFinder::longest_at(std::string_view text) const {
  Match longest;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto edge = edges_.find(uint64_t{node} * 256 + static_cast<uint8_t>(text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (token_at_[node] >= 0) longest = {token_at_[node], i + 1};
  }
  return longest;
}

void AddedTokenFinder::split(std::string_view text, std::vector<TextPart>& parts) const {
  size_t copied = 0;  // everything before it is in parts
  const auto add = [&](int32_t id, size_t begin, size_t end) {
    if (begin < end) parts.push_back({id, text.substr(begin, end - begin)});
  };
  for (size_t i = 0; !edges_.empty() && i < text.size();) {
    if (!begins_[static_cast<uint8_t>(text[i])]) {
      ++i;
      continue;
    }
    const Match match = longest_at(text.substr(i));
    if (match.token < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[match.token];
    size_t begin = i;
    size_t end = i + match.length;
    i = end;  // the search goes on behind the token even where it is rejected or takes more space
    if (token.single_word && !is_single_word(text, begin, end)) continue;
    if (token.lstrip) begin = std::max(space_begin(text, begin), copied);
    if (token.rstrip) end = space_end(text, end);
    add(-1, copied, begin);
    add(token.id, begin, end);
    copied = end;
  }
  add(-1, copied, text.size());
}

}  // namespace moetron
