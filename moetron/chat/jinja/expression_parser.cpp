#include "moetron/chat/jinja/expression_parser.h"

#include <algorithm>
#include <array>
#include <optional>

namespace moetron::jinja {
namespace {

constexpr int kMaxDepth = 400;

std::optional<Comparison> comparison_of(const TokenStream& tokens) {
  static constexpr std::array<std::pair<std::string_view, Comparison>, 6> kComparisons{{
      {"==", Comparison::kEqual},
      {"!=", Comparison::kNotEqual},
      {"<", Comparison::kLess},
      {"<=", Comparison::kLessEqual},
      {">", Comparison::kGreater},
      {">=", Comparison::kGreaterEqual},
  }};
  for (const auto& [text, comparison] : kComparisons)
    if (tokens.is_operator(text)) return comparison;
  if (tokens.is_name("in")) return Comparison::kIn;
  const Token& next = tokens.next();
  if (tokens.is_name("not") && next.kind == TokenKind::kName && next.text == "in")
    return Comparison::kNotIn;
  return std::nullopt;
}

}  // namespace

ExpressionParser::Level::Level(ExpressionParser& parser) : parser_(parser) {
  deepen();
}

ExpressionParser::Level::~Level() {
  parser_.depth_ -= depth_;
}

void ExpressionParser::Level::deepen() {
  ++depth_;
  if (++parser_.depth_ > kMaxDepth) {
    parser_.depth_ -= depth_;
    depth_ = 0;
    parser_.tokens_.fail("the template is nested too deeply");
  }
}

ExpressionPtr ExpressionParser::make(ExpressionKind kind, int line) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExpressionPtr ExpressionParser::parse_expression(bool with_conditional) {
  return with_conditional ? parse_conditional() : parse_or();
}

ExpressionPtr ExpressionParser::parse_conditional() {
  Level level(*this);
  ExpressionPtr value = parse_or();
  while (tokens_.is_name("if")) {
    level.deepen();
    ExpressionPtr node = make(ExpressionKind::kConditional, tokens_.line());
    tokens_.take();
    node->parts.push_back(std::move(value));
    node->parts.push_back(parse_or());
    node->parts.push_back(tokens_.skip_name("else") ? parse_conditional() : nullptr);
    value = std::move(node);
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_or() {
  Level level(*this);
  ExpressionPtr left = parse_and();
  while (tokens_.skip_name("or")) {
    level.deepen();
    ExpressionPtr node = make(ExpressionKind::kOr, tokens_.line());
    node->parts.push_back(std::move(left));
    node->parts.push_back(parse_and());
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  Level level(*this);
  ExpressionPtr left = parse_not();
  while (tokens_.skip_name("and")) {
    level.deepen();
    ExpressionPtr node = make(ExpressionKind::kAnd, tokens_.line());
    node->parts.push_back(std::move(left));
    node->parts.push_back(parse_not());
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  if (!tokens_.is_name("not")) return parse_compare();
  const Level level(*this);
  ExpressionPtr node = make(ExpressionKind::kNot, tokens_.take().line);
  node->parts.push_back(parse_not());
  return node;
}

ExpressionPtr ExpressionParser::parse_compare() {
  ExpressionPtr node = make(ExpressionKind::kCompare, tokens_.line());
  node->parts.push_back(parse_sum());
  while (const std::optional<Comparison> comparison = comparison_of(tokens_)) {
    tokens_.take();
    if (comparison == Comparison::kNotIn) tokens_.take();
    node->comparisons.push_back(*comparison);
    node->parts.push_back(parse_sum());
  }
  return node->comparisons.empty() ? std::move(node->parts[0]) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_sum() {
  Level level(*this);
  ExpressionPtr left = parse_concat();
  while (tokens_.is_operator("+") || tokens_.is_operator("-")) {
    level.deepen();
    ExpressionPtr node = make(ExpressionKind::kBinary, tokens_.line());
    node->op = tokens_.take().text == "+" ? Operator::kAdd : Operator::kSub;
    node->parts.push_back(std::move(left));
    node->parts.push_back(parse_concat());
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concat() {
  ExpressionPtr node = make(ExpressionKind::kConcat, tokens_.line());
  node->parts.push_back(parse_product());
  while (tokens_.skip_operator("~")) node->parts.push_back(parse_product());
  return node->parts.size() == 1 ? std::move(node->parts[0]) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_product() {
  static constexpr std::array<std::pair<std::string_view, Operator>, 4> kOperators{{
      {"*", Operator::kMul},
      {"/", Operator::kDiv},
      {"//", Operator::kFloorDiv},
      {"%", Operator::kMod},
  }};
  Level level(*this);
  ExpressionPtr left = parse_power();
  while (true) {
    const auto found =
        std::find_if(kOperators.begin(), kOperators.end(),
                     [this](const auto& entry) { return tokens_.is_operator(entry.first); });
    if (found == kOperators.end()) return left;
    level.deepen();
    ExpressionPtr node = make(ExpressionKind::kBinary, tokens_.take().line);
    node->op = found->second;
    node->parts.push_back(std::move(left));
    node->parts.push_back(parse_power());
    left = std::move(node);
  }
}

ExpressionPtr ExpressionParser::parse_power() {
  Level level(*this);
  ExpressionPtr left = parse_unary();
  while (tokens_.is_operator("**")) {
    level.deepen();
    ExpressionPtr node = make(ExpressionKind::kBinary, tokens_.take().line);
    node->op = Operator::kPow;
    node->parts.push_back(std::move(left));
    node->parts.push_back(parse_unary());
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filter) {
  Level level(*this);
  ExpressionPtr node;
  const bool is_negative = tokens_.is_operator("-");
  if (is_negative || tokens_.is_operator("+")) {
    node = make(is_negative ? ExpressionKind::kNegative : ExpressionKind::kPositive,
                tokens_.take().line);
    node->parts.push_back(parse_unary(false));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node), level);
  return with_filter ? parse_filters(std::move(node), level) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_primary(bool with_namespace) {
  ExpressionPtr node = make(ExpressionKind::kConstant, tokens_.line());
  if (tokens_.is_operator("(")) return parse_parentheses();
  if (tokens_.is_operator("[")) return parse_list();
  if (tokens_.is_operator("{")) return parse_dict();
  if (tokens_.is(TokenKind::kString)) {
    std::string text;
    while (tokens_.is(TokenKind::kString)) text += tokens_.take().text;
    literals_ += text;
    literals_ += '\0';
    node->constant = text_value(std::move(text));
    return node;
  }
  if (tokens_.is(TokenKind::kInteger)) {
    node->constant = tokens_.take().integer;
    return node;
  }
  if (tokens_.is(TokenKind::kFloat)) {
    node->constant = tokens_.take().number;
    return node;
  }
  if (!tokens_.is(TokenKind::kName))
    tokens_.fail("unexpected '" + describe(tokens_.current()) + "'");
  const std::string name = tokens_.take().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->constant = name == "true" || name == "True";
  } else if (name != "none" && name != "None") {
    node->kind = ExpressionKind::kName;
    node->name = name;
    if (name == "caller") ++special_names_.caller;
    if (name == "kwargs") ++special_names_.kwargs;
    if (name == "varargs") ++special_names_.varargs;
    if (with_namespace && tokens_.skip_operator(".")) {
      node->kind = ExpressionKind::kNamespaceAttribute;
      node->constant = text_value(tokens_.expect(TokenKind::kName).text);
    }
  }
  return node;
}

bool ExpressionParser::at_tuple_end(std::string_view end_name) const {
  return tokens_.is(TokenKind::kVariableEnd) || tokens_.is(TokenKind::kBlockEnd) ||
         tokens_.is_operator(")") || (!end_name.empty() && tokens_.is_name(end_name));
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_conditional, std::string_view end_name) {
  ExpressionPtr tuple = make(ExpressionKind::kTuple, tokens_.line());
  bool is_tuple = false;
  while (!at_tuple_end(end_name)) {
    tuple->parts.push_back(parse_expression(with_conditional));
    if (!tokens_.is_operator(",")) break;
    is_tuple = true;
    tokens_.take();
  }
  if (is_tuple) return tuple;
  if (tuple->parts.empty())
    tokens_.fail("Expected an expression, got '" + describe(tokens_.current()) + "'");
  return std::move(tuple->parts[0]);
}

ExpressionPtr ExpressionParser::parse_parentheses() {
  const int line = tokens_.take().line;
  ExpressionPtr node =
      tokens_.is_operator(")") ? make(ExpressionKind::kTuple, line) : parse_tuple();
  tokens_.expect_operator(")");
  return node;
}

ExpressionPtr ExpressionParser::parse_list() {
  ExpressionPtr node = make(ExpressionKind::kList, tokens_.take().line);
  while (!tokens_.is_operator("]")) {
    if (!node->parts.empty()) tokens_.expect_operator(",");
    if (tokens_.is_operator("]")) break;
    node->parts.push_back(parse_expression());
  }
  tokens_.expect_operator("]");
  return node;
}

ExpressionPtr ExpressionParser::parse_dict() {
  ExpressionPtr node = make(ExpressionKind::kDict, tokens_.take().line);
  while (!tokens_.is_operator("}")) {
    if (!node->parts.empty()) tokens_.expect_operator(",");
    if (tokens_.is_operator("}")) break;
    node->parts.push_back(parse_expression());
    tokens_.expect_operator(":");
    node->parts.push_back(parse_expression());
  }
  tokens_.expect_operator("}");
  return node;
}

void ExpressionParser::check_target(const Expression& target) const {
  switch (target.kind) {
    case ExpressionKind::kName:
    case ExpressionKind::kNamespaceAttribute:
      return;
    case ExpressionKind::kTuple:
    case ExpressionKind::kList:
      for (const ExpressionPtr& part : target.parts) check_target(*part);
      return;
    default:
      tokens_.fail("can't assign to a value");
  }
}

ExpressionPtr ExpressionParser::parse_target(bool with_namespace, std::string_view end_name) {
  const SpecialNames before = special_names_;  // storing is not reading
  ExpressionPtr tuple = make(ExpressionKind::kTuple, tokens_.line());
  bool is_tuple = false;
  while (!at_tuple_end(end_name)) {
    tuple->parts.push_back(parse_primary(with_namespace));
    if (!tokens_.is_operator(",")) break;
    is_tuple = true;
    tokens_.take();
  }
  if (tuple->parts.empty())
    tokens_.fail("Expected an expression, got '" + describe(tokens_.current()) + "'");
  ExpressionPtr target = is_tuple ? std::move(tuple) : std::move(tuple->parts[0]);
  check_target(*target);
  special_names_ = before;
  return target;
}

std::string ExpressionParser::parse_target_name() {
  const std::string name = tokens_.expect(TokenKind::kName).text;
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"})
    if (name == constant) tokens_.fail("can't assign to 'const'");
  return name;
}

}  // namespace moetron::jinja
