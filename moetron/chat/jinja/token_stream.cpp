#include "moetron/chat/jinja/token_stream.h"

namespace moetron::jinja {
namespace {

std::string describe_kind(TokenKind kind) {
  switch (kind) {
    case TokenKind::kText:
      return "template data / text";
    case TokenKind::kBlockBegin:
      return "begin of statement block";
    case TokenKind::kBlockEnd:
      return "end of statement block";
    case TokenKind::kVariableBegin:
      return "begin of print statement";
    case TokenKind::kVariableEnd:
      return "end of print statement";
    case TokenKind::kName:
      return "name";
    case TokenKind::kString:
      return "string";
    case TokenKind::kInteger:
      return "integer";
    case TokenKind::kFloat:
      return "float";
    case TokenKind::kOperator:
      return "operator";
    case TokenKind::kEnd:
      return "end of template";
  }
  return {};
}

}  // namespace

std::string describe(const Token& token) {
  const bool has_text = token.kind == TokenKind::kName || token.kind == TokenKind::kOperator;
  return has_text ? token.text : describe_kind(token.kind);
}

Token TokenStream::take() {
  const Token token = current();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool TokenStream::skip_operator(std::string_view text) {
  if (!is_operator(text)) return false;
  take();
  return true;
}

bool TokenStream::skip_name(std::string_view text) {
  if (!is_name(text)) return false;
  take();
  return true;
}

Token TokenStream::expect(TokenKind kind) {
  if (is(kind)) return take();
  if (is(TokenKind::kEnd))
    fail("unexpected end of template, expected '" + describe_kind(kind) + "'.");
  fail("expected token '" + describe_kind(kind) + "', got '" + describe(current()) + "'");
}

void TokenStream::expect_operator(std::string_view text) {
  if (skip_operator(text)) return;
  if (is(TokenKind::kEnd))
    fail("unexpected end of template, expected '" + std::string(text) + "'.");
  fail("expected token '" + std::string(text) + "', got '" + describe(current()) + "'");
}

void TokenStream::expect_name(std::string_view text) {
  if (skip_name(text)) return;
  if (is(TokenKind::kEnd))
    fail("unexpected end of template, expected '" + std::string(text) + "'.");
  fail("expected token '" + std::string(text) + "', got '" + describe(current()) + "'");
}

void TokenStream::fail(std::string reason) const {
  throw SyntaxFailure{line(), std::move(reason)};
}

}  // namespace moetron::jinja
