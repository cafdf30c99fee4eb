// What stands behind a value: subscripts, calls, filters and tests.
#include "moetron/chat/jinja/expression_parser.h"

namespace moetron::jinja {

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr node, Level& level) {
  while (true) {
    if (tokens_.is_operator(".") || tokens_.is_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (tokens_.is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
    level.deepen();
  }
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr node, Level& level) {
  while (true) {
    if (tokens_.is_operator("|")) {
      node = parse_filter(std::move(node));
    } else if (tokens_.is_name("is")) {
      node = parse_test(std::move(node));
    } else if (tokens_.is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
    level.deepen();
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr node) {
  const Token token = tokens_.take();
  if (token.text == ".") {
    if (tokens_.is(TokenKind::kName)) {
      ExpressionPtr attribute = make(ExpressionKind::kAttribute, token.line);
      attribute->name = tokens_.take().text;
      attribute->parts.push_back(std::move(node));
      return attribute;
    }
    if (!tokens_.is(TokenKind::kInteger)) tokens_.fail("expected name or number");
    ExpressionPtr item = make(ExpressionKind::kItem, token.line);
    item->parts.push_back(std::move(node));
    item->parts.push_back(parse_primary());
    return item;
  }
  std::vector<ExpressionPtr> keys;
  bool is_slice = false;
  while (!tokens_.is_operator("]")) {
    if (!keys.empty()) tokens_.expect_operator(",");
    keys.push_back(parse_subscribed(is_slice));
  }
  tokens_.expect_operator("]");
  if (is_slice) {
    if (keys.size() != 1) tokens_.fail("a slice among several subscripts is not supported");
    keys[0]->parts[0] = std::move(node);
    return std::move(keys[0]);
  }
  ExpressionPtr item = make(ExpressionKind::kItem, token.line);
  item->parts.push_back(std::move(node));
  if (keys.size() == 1) {
    item->parts.push_back(std::move(keys[0]));
  } else {
    item->parts.push_back(make(ExpressionKind::kTuple, token.line));
    item->parts[1]->parts = std::move(keys);
  }
  return item;
}

// A key, or a slice whose parts[0] is still empty.
ExpressionPtr ExpressionParser::parse_subscribed(bool& is_slice_out) {
  ExpressionPtr slice = make(ExpressionKind::kSlice, tokens_.line());
  slice->parts.resize(4);
  if (!tokens_.is_operator(":")) {
    ExpressionPtr key = parse_expression();
    if (!tokens_.is_operator(":")) return key;
    slice->parts[1] = std::move(key);
  }
  is_slice_out = true;
  tokens_.take();
  const auto ends = [this] { return tokens_.is_operator("]") || tokens_.is_operator(","); };
  if (!tokens_.is_operator(":") && !ends()) slice->parts[2] = parse_expression();
  if (tokens_.skip_operator(":") && !ends()) slice->parts[3] = parse_expression();
  return slice;
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr node) {
  ExpressionPtr call = make(ExpressionKind::kCall, tokens_.line());
  call->call = parse_arguments();
  call->parts.push_back(std::move(node));
  return call;
}

CallArguments ExpressionParser::parse_arguments() {
  CallArguments arguments;
  tokens_.expect_operator("(");
  const auto ensure = [this](bool holds) {
    if (!holds) tokens_.fail("invalid syntax for function call expression");
  };
  for (bool is_first = true; !tokens_.is_operator(")"); is_first = false) {
    if (!is_first) {
      tokens_.expect_operator(",");
      if (tokens_.is_operator(")")) break;
    }
    if (tokens_.skip_operator("*")) {
      ensure(!arguments.more_positional && !arguments.more_named);
      arguments.more_positional = parse_expression();
    } else if (tokens_.skip_operator("**")) {
      ensure(!arguments.more_named);
      arguments.more_named = parse_expression();
    } else if (tokens_.is(TokenKind::kName) && tokens_.next().kind == TokenKind::kOperator &&
               tokens_.next().text == "=") {
      ensure(!arguments.more_named);
      const std::string name = tokens_.take().text;
      tokens_.take();
      arguments.named.emplace_back(name, parse_expression());
    } else {
      ensure(!arguments.more_positional && !arguments.more_named && arguments.named.empty());
      arguments.positional.push_back(parse_expression());
    }
  }
  tokens_.expect_operator(")");
  return arguments;
}

ExpressionPtr ExpressionParser::parse_filter(ExpressionPtr node, bool is_inline) {
  Level level(*this);
  while (is_inline || tokens_.is_operator("|")) {
    if (!is_inline) tokens_.take();
    is_inline = false;
    level.deepen();
    ExpressionPtr filter = make(ExpressionKind::kFilter, tokens_.line());
    filter->name = tokens_.expect(TokenKind::kName).text;
    while (tokens_.skip_operator(".")) filter->name += "." + tokens_.expect(TokenKind::kName).text;
    if (tokens_.is_operator("(")) filter->call = parse_arguments();
    filter->parts.push_back(std::move(node));
    node = std::move(filter);
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr node) {
  ExpressionPtr test = make(ExpressionKind::kTest, tokens_.take().line);
  const bool is_negated = tokens_.skip_name("not");
  test->name = tokens_.expect(TokenKind::kName).text;
  while (tokens_.skip_operator(".")) test->name += "." + tokens_.expect(TokenKind::kName).text;
  const bool has_argument = tokens_.is(TokenKind::kName) || tokens_.is(TokenKind::kString) ||
                            tokens_.is(TokenKind::kInteger) || tokens_.is(TokenKind::kFloat) ||
                            tokens_.is_operator("[") || tokens_.is_operator("{");
  if (tokens_.is_operator("(")) {
    test->call = parse_arguments();
  } else if (has_argument && !tokens_.is_name("else") && !tokens_.is_name("or") &&
             !tokens_.is_name("and")) {
    if (tokens_.is_name("is")) tokens_.fail("You cannot chain multiple tests with is");
    Level level(*this);
    test->call.positional.push_back(parse_postfix(parse_primary(), level));
  }
  test->parts.push_back(std::move(node));
  if (!is_negated) return test;
  ExpressionPtr negation = make(ExpressionKind::kNot, test->line);
  negation->parts.push_back(std::move(test));
  return negation;
}

}  // namespace moetron::jinja
