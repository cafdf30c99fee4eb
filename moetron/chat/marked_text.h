// Users' text that looks like control tokens, kept apart from the tokens that a template writes:
// such places are put between two private characters before a chat is rendered (as transformers'
// sanitize_control_tokens does), and encoded as plain text behind it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/json.h"
#include "moetron/chat/chat_template.h"
#include "moetron/tokenizer/added_tokens.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {

class ControlTokenMarker {
 public:
  ControlTokenMarker() = default;
  explicit ControlTokenMarker(const std::vector<std::string>& tokens);

  // With every text in it marked, but keys of objects; the private characters themselves are
  // dropped.
  Json marked(const Json& value) const;
  std::string marked(std::string_view text) const;

 private:
  AddedTokenFinder finder_;
};

// A rendered chat without its marks.
struct UnmarkedText {
  std::string text;
  std::vector<TextPiece> pieces;  // that cover the text; what was marked is plain

  // Where a byte of the marked text is now.
  size_t place_of(size_t marked_place) const;

  std::vector<size_t> mark_ends;  // bytes of the marked text behind each mark
};
UnmarkedText without_marks(std::string_view marked);

// Whether the text ends with a mark, so that what stands before it is a user's.
bool ends_with_mark(std::string_view marked);

}  // namespace moetron
