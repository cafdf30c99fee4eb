// A template as tokens: text, and what stands between {% %} and {{ }}. White space is cut as
// transformers' environment does (trim_blocks, lstrip_blocks, and the signs - and +).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moetron::jinja {

enum class TokenKind {
  kText,        // raw text of the template
  kBlockBegin,  // {%
  kBlockEnd,
  kVariableBegin,  // {{
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;  // of a name, an operator, text, or a string without its quotes and escapes
  int64_t integer = 0;
  double number = 0;
};

// A mistake in the template's text.
struct SyntaxFailure {
  int line;
  std::string reason;
};

// The last token is kEnd. `source` is UTF-8. Throws SyntaxFailure.
std::vector<Token> tokenize(std::string_view source);

}  // namespace moetron::jinja
