// Tokens that the parsers take one by one.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moetron/chat/jinja/lexer.h"

namespace moetron::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  int line() const { return current().line; }
  Token take();

  bool is(TokenKind kind) const { return current().kind == kind; }
  bool is_operator(std::string_view text) const {
    return is(TokenKind::kOperator) && current().text == text;
  }
  bool is_name(std::string_view text) const {
    return is(TokenKind::kName) && current().text == text;
  }
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);

  Token expect(TokenKind kind);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  [[noreturn]] void fail(std::string reason) const;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

// What errors call a token.
std::string describe(const Token& token);

}  // namespace moetron::jinja
