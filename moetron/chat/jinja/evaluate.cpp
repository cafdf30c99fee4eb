// Expressions of templates.
#include <algorithm>
#include <array>

#include "moetron/chat/jinja/filters.h"
#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/interpreter.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {

Value Interpreter::evaluate(const Expression& node, const ScopePtr& scope) {
  const Budget::Level level(budget_);
  budget_.step();
  line_ = node.line;
  return evaluate_node(node, scope);
}

Value Interpreter::evaluate_node(const Expression& node, const ScopePtr& scope) {
  const auto part = [&](size_t i) { return evaluate(*node.parts[i], scope); };
  switch (node.kind) {
    case ExpressionKind::kConstant:
      return node.constant;
    case ExpressionKind::kName:
      return evaluate_name(node, scope);
    case ExpressionKind::kList:
      return make_list(evaluate_all(node.parts, scope), budget_);
    case ExpressionKind::kTuple:
      return make_tuple(evaluate_all(node.parts, scope), budget_);
    case ExpressionKind::kDict:
      return evaluate_dict(node, scope);
    case ExpressionKind::kAttribute:
      return get_attribute(part(0), node.name, budget_);
    case ExpressionKind::kItem: {
      const Value value = part(0);
      return get_item(value, part(1), budget_);
    }
    case ExpressionKind::kSlice:
      return evaluate_slice(node, scope);
    case ExpressionKind::kCall:
      return evaluate_call(node, scope);
    case ExpressionKind::kFilter:
      return evaluate_filter(node, scope);
    case ExpressionKind::kTest: {
      const Value value = part(0);
      return apply_test(node.name, value, evaluate_arguments(node.call, scope), budget_);
    }
    case ExpressionKind::kNegative:
      return negated(part(0));
    case ExpressionKind::kPositive:
      return positive(part(0));
    case ExpressionKind::kNot:
      return !is_true(part(0));
    case ExpressionKind::kAnd: {
      Value left = part(0);
      return is_true(left) ? part(1) : left;
    }
    case ExpressionKind::kOr: {
      Value left = part(0);
      return is_true(left) ? left : part(1);
    }
    case ExpressionKind::kConditional:
      if (is_true(part(1))) return part(0);
      if (node.parts[2]) return part(2);
      return make_undefined("the inline if-expression on line " + std::to_string(node.line) +
                            " evaluated to false and no else section was defined.");
    case ExpressionKind::kConcat:
      return evaluate_concat(node, scope);
    case ExpressionKind::kBinary: {
      const Value left = part(0);
      return compute(node.op, left, part(1), budget_);
    }
    case ExpressionKind::kCompare:
      return evaluate_compare(node, scope);
    case ExpressionKind::kNamespaceAttribute:
      break;  // a target only
  }
  fail("an expression cannot be evaluated");
}

Value Interpreter::evaluate_name(const Expression& node, const ScopePtr& scope) {
  if (const Value* found = scope->find(node.name)) return *found;
  static constexpr std::array<std::string_view, 8> kFunctions = {
      "range",        "dict",   "namespace", "raise_exception",
      "strftime_now", "cycler", "joiner",    "lipsum"};
  if (std::find(kFunctions.begin(), kFunctions.end(), node.name) != kFunctions.end())
    return std::make_shared<Function>(node.name);
  return make_undefined(quote_text(node.name) + " is undefined");
}

Value Interpreter::evaluate_dict(const Expression& node, const ScopePtr& scope) {
  auto dict = std::make_shared<Dict>();
  budget_.allocate(node.parts.size() * 2 * sizeof(Value) + sizeof(Dict));
  for (size_t i = 0; i < node.parts.size(); i += 2) {
    const Value key = evaluate(*node.parts[i], scope);
    dict->set(key, evaluate(*node.parts[i + 1], scope));
  }
  return dict;
}

Value Interpreter::evaluate_compare(const Expression& node, const ScopePtr& scope) {
  Value left = evaluate(*node.parts[0], scope);
  for (size_t i = 0; i < node.comparisons.size(); ++i) {
    Value right = evaluate(*node.parts[i + 1], scope);
    if (!compare(node.comparisons[i], left, right, budget_)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate_concat(const Expression& node, const ScopePtr& scope) {
  std::string text;
  for (const Value& value : evaluate_all(node.parts, scope)) text += to_text(value, budget_);
  return make_string(std::move(text), budget_);
}

Value Interpreter::evaluate_slice(const Expression& node, const ScopePtr& scope) {
  const auto part = [&](size_t i) {
    return node.parts[i] ? evaluate(*node.parts[i], scope) : Value();
  };
  const Value value = part(0);
  const Value start = part(1);
  const Value stop = part(2);
  return get_slice(value, start, stop, part(3), budget_);
}

Value Interpreter::evaluate_filter(const Expression& node, const ScopePtr& scope) {
  const Value value =
      node.parts[0] ? evaluate(*node.parts[0], scope) : make_string(*block_, budget_);
  const Arguments arguments = evaluate_arguments(node.call, scope);
  line_ = node.line;
  return apply_filter(node.name, value, arguments, budget_);
}

Values Interpreter::evaluate_all(const std::vector<ExpressionPtr>& nodes, const ScopePtr& scope) {
  Values values;
  values.reserve(nodes.size());
  for (const ExpressionPtr& node : nodes) values.push_back(evaluate(*node, scope));
  return values;
}

Arguments Interpreter::evaluate_arguments(const CallArguments& call, const ScopePtr& scope) {
  Arguments arguments;
  arguments.positional = evaluate_all(call.positional, scope);
  for (const auto& [name, value] : call.named) {
    if (arguments.find(name) != nullptr) fail("keyword argument repeated: ", name);
    arguments.named.emplace_back(name, evaluate(*value, scope));
  }
  if (call.more_positional) {
    for (Value& value : list_of(evaluate(*call.more_positional, scope), budget_))
      arguments.positional.push_back(std::move(value));
  }
  if (!call.more_named) return arguments;
  const Value more = evaluate(*call.more_named, scope);
  if (!more.is(Kind::kDict)) fail("argument after ** must be a mapping, not ", type_name(more));
  for (const auto& [name, value] : more.as<Dict>().items) {
    if (!name.is_string()) fail("keywords must be strings");
    if (arguments.find(name.text()) != nullptr)
      fail("got multiple values for keyword argument ", quote_text(name.text()));
    arguments.named.emplace_back(name.text(), value);
    budget_.step(arguments.named.size());
  }
  return arguments;
}

}  // namespace moetron::jinja
