#include "moetron/tokenizer/added_tokens.h"

#include <algorithm>
#include <functional>

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

uint64_t edge_key(uint32_t node, char byte) {
  return uint64_t{node} * 256 + static_cast<uint8_t>(byte);
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::span<const AddedToken> tokens,
                                   std::span<const std::string> contents)
    : tokens_(tokens.begin(), tokens.end()), nodes_(1) {
  for (size_t i = 0; i < tokens_.size(); ++i)
    if (!contents[i].empty()) add_token(contents[i], static_cast<int32_t>(i));
  link_nodes(contents);
  has_one_begin_ = std::ranges::count(begins_, true) == 1;
  one_begin_ = static_cast<char>(std::ranges::find(begins_, true) - begins_.begin());
}

void AddedTokenFinder::add_token(std::string_view content, int32_t index) {
  begins_[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char byte : content) {
    const auto [found, is_new] =
        edges_.emplace(edge_key(node, byte), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back().depth = nodes_[node].depth + 1;
    node = found->second;
  }
  // Two tokens may be the same after normalisation; the first is the one that is found.
  if (nodes_[node].token >= 0) return;
  nodes_[node].token = index;
  nodes_[node].length = nodes_[node].depth;
}

// By depth: a node's `shorter` lies above it. The longest come first, so that each round ends with
// the first token that is too short for it.
void AddedTokenFinder::link_nodes(std::span<const std::string> contents) {
  struct Path {
    const std::string* content;
    uint32_t node;  // that it has come to
  };
  std::vector<Path> paths;
  for (const std::string& content : contents) paths.push_back({&content, 0});
  std::ranges::sort(paths, std::greater<>(), [](const Path& path) { return path.content->size(); });
  for (size_t depth = 0; !paths.empty(); ++depth) {
    while (!paths.empty() && paths.back().content->size() <= depth) paths.pop_back();
    for (Path& path : paths) {
      const char byte = (*path.content)[depth];
      const uint32_t parent = path.node;
      path.node = edges_.at(edge_key(parent, byte));
      if (parent == 0) continue;  // the root is shorter than any
      Node& node = nodes_[path.node];
      node.shorter = step(nodes_[parent].shorter, byte);
      if (node.token < 0) {
        node.token = nodes_[node.shorter].token;
        node.length = nodes_[node.shorter].length;
      }
    }
  }
}

uint32_t AddedTokenFinder::step(uint32_t node, char byte) const {
  for (;;) {
    const auto edge = edges_.find(edge_key(node, byte));
    if (edge != edges_.end()) return edge->second;
    if (node == 0) return 0;
    node = nodes_[node].shorter;
  }
}

// The next place where a token may begin, or the end.
size_t AddedTokenFinder::next_begin(std::string_view text, size_t from) const {
  if (has_one_begin_) return std::min(text.find(one_begin_, from), text.size());
  while (from < text.size() && !begins_[static_cast<uint8_t>(text[from])]) ++from;
  return from;
}

AddedTokenFinder::Match AddedTokenFinder::next_match(std::string_view text, size_t from) const {
  Match best;
  uint32_t node = 0;
  for (size_t i = from; i < text.size(); ++i) {
    if (node == 0 && !begins_[static_cast<uint8_t>(text[i])]) {
      if (best.token >= 0) break;
      i = next_begin(text, i + 1);
      if (i == text.size()) break;
    }
    node = step(node, text[i]);
    const Node& read = nodes_[node];
    // What is still being read begins behind the match: it can neither be longer nor come first.
    if (best.token >= 0 && i + 1 - read.depth > best.begin) break;
    if (read.token < 0) continue;
    const size_t begin = i + 1 - read.length;
    if (best.token < 0 || begin <= best.begin) best = {read.token, begin, i + 1};
  }
  return best;
}

void AddedTokenFinder::split(std::string_view text, std::vector<TextPart>& parts) const {
  size_t copied = 0;  // everything before it is in parts
  const auto add = [&](int32_t id, size_t begin, size_t end) {
    if (begin < end) parts.push_back({id, text.substr(begin, end - begin)});
  };
  for (size_t i = 0; !edges_.empty();) {
    const Match match = next_match(text, i);
    if (match.token < 0) break;
    const AddedToken& token = tokens_[match.token];
    size_t begin = match.begin;
    size_t end = match.end;
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
