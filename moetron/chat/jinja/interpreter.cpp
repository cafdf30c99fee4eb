#include "moetron/chat/jinja/interpreter.h"

#include <algorithm>

#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

// The values of a loop that its condition lets through. A condition is evaluated when its value is
// asked for, not before: the loop's body may change what it reads.
struct FilteredIterator : Iterator {
  FilteredIterator(Interpreter& run, const Statement& of, Value from, const ScopePtr& around)
      : Iterator("generator"), interpreter(run), loop(of), values(std::move(from)), scope(around) {}
  bool next(Value& value_out) override {
    const ScopePtr around = scope.lock();  // which the loop's block holds
    while (around != nullptr && values.as<Iterator>().next(value_out))
      if (interpreter.holds(*loop.condition, *loop.target, value_out, around)) return true;
    return false;
  }
  Interpreter& interpreter;
  const Statement& loop;
  Value values;
  std::weak_ptr<Scope> scope;
};

}  // namespace

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get())
    for (const auto& [key, value] : scope->names)
      if (key == name) return &value;
  return nullptr;
}

void Scope::set(std::string_view name, Value value) {
  for (auto& [key, old] : names) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  names.emplace_back(name, std::move(value));
}

void Interpreter::define(const std::string& name, Value value) {
  names_.push_back(name);
  context_->set(names_.back(), std::move(value));
}

void Interpreter::run(const Template& tree) {
  execute(tree.body, std::make_shared<Scope>(context_));
}

bool Interpreter::holds(const Expression& condition, const Expression& target, const Value& item,
                        const ScopePtr& scope) {
  const auto inner = std::make_shared<Scope>(scope);
  assign(target, item, inner);
  return is_true(evaluate(condition, inner));
}

void Interpreter::write(std::string_view text) {
  budget_.allocate(text.size());
  *out_ += text;
}

// What `body` writes.
std::string Interpreter::captured(const Statements& body, const ScopePtr& scope) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  try {
    execute(body, scope);
  } catch (...) {
    out_ = outer;
    throw;
  }
  out_ = outer;
  return text;
}

Interpreter::Flow Interpreter::execute(const Statements& body, const ScopePtr& scope) {
  const Budget::Level level(budget_);
  for (const Statement& statement : body) {
    const Flow flow = execute(statement, scope);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Statement& statement, const ScopePtr& scope) {
  budget_.step();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::kText:
      write(statement.text);
      break;
    case StatementKind::kPrint:
      write(to_text(evaluate(*statement.value, scope), budget_));
      break;
    case StatementKind::kIf:
      return execute_if(statement, scope);
    case StatementKind::kFor:
      execute_for(statement, evaluate(*statement.value, scope), scope, 0);
      break;
    case StatementKind::kSet:
      execute_set(statement, scope);
      break;
    case StatementKind::kSetBlock:
      execute_set_block(statement, scope);
      break;
    case StatementKind::kWith:
      return execute_with(statement, scope);
    case StatementKind::kMacro:
      scope->set(statement.macro->name, std::make_shared<Macro>(statement.macro, scope));
      break;
    case StatementKind::kCallBlock: {
      const Value caller = std::make_shared<Macro>(statement.macro, scope);
      write(to_text(evaluate_call(*statement.value, scope, &caller), budget_));
      break;
    }
    case StatementKind::kFilterBlock: {
      const auto inner = std::make_shared<Scope>(scope);
      const std::string text = captured(statement.body, inner);
      block_ = &text;
      const Value filtered = evaluate(*statement.filter, inner);
      block_ = nullptr;
      write(to_text(filtered, budget_));
      break;
    }
    case StatementKind::kGeneration:
      execute_generation(statement, scope);
      break;
    case StatementKind::kScope:
      return execute(statement.body, std::make_shared<Scope>(scope));
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_if(const Statement& statement, const ScopePtr& scope) {
  for (const Branch& branch : statement.branches) {
    if (!branch.condition || is_true(evaluate(*branch.condition, scope)))
      return execute(branch.body, scope);
  }
  return Flow::kNext;
}

void Interpreter::execute_for(const Statement& statement, const Value& values,
                              const ScopePtr& scope, int64_t depth) {
  Value iterator = iterator_of(values, budget_);
  std::optional<int64_t> length = values.is(Kind::kIterator) ? std::nullopt : length_of(values);
  if (statement.condition) {
    iterator = std::make_shared<FilteredIterator>(*this, statement, iterator, scope);
    length.reset();
  }
  const auto loop = std::make_shared<Loop>(iterator, length, depth);
  if (statement.is_recursive) {
    loop->recursive = &statement;
    loop->scope = scope;
  }
  Value item;
  // As in jinja2, what break or continue cut short has not been run.
  bool was_run = false;
  while (loop->advance(item)) {
    budget_.step();
    const auto inner = std::make_shared<Scope>(scope);
    inner->set("loop", loop);
    assign(*statement.target, item, inner);
    const Flow flow = execute(statement.body, inner);
    if (flow == Flow::kBreak) break;
    was_run = was_run || flow == Flow::kNext;
  }
  if (!was_run) execute(statement.other, std::make_shared<Scope>(scope));
}

Interpreter::Flow Interpreter::execute_with(const Statement& statement, const ScopePtr& scope) {
  const auto inner = std::make_shared<Scope>(scope);
  for (size_t i = 0; i < statement.targets.size(); ++i)
    assign(*statement.targets[i], evaluate(*statement.values[i], scope), inner);
  return execute(statement.body, inner);
}

void Interpreter::execute_set(const Statement& statement, const ScopePtr& scope) {
  const Value value = evaluate(*statement.value, scope);
  line_ = statement.line;
  assign(*statement.target, value, scope);
}

void Interpreter::execute_set_block(const Statement& statement, const ScopePtr& scope) {
  const auto inner = std::make_shared<Scope>(scope);
  std::string text = captured(statement.body, inner);
  Value value;
  if (statement.filter) {
    block_ = &text;
    value = evaluate(*statement.filter, inner);
    block_ = nullptr;
  } else {
    value = text_value(std::move(text));
  }
  assign(*statement.target, value, scope);
}

void Interpreter::execute_generation(const Statement& statement, const ScopePtr& scope) {
  const size_t begin = output_.size();
  const std::string text = captured(statement.body, std::make_shared<Scope>(scope));
  generations_.emplace_back(begin, begin + text.size());
  write(text);
}

void Interpreter::assign(const Expression& target, const Value& value, const ScopePtr& scope) {
  if (target.kind == ExpressionKind::kName) {
    scope->set(target.name, value);
    return;
  }
  if (target.kind == ExpressionKind::kNamespaceAttribute) {
    assign_attribute(target, value, scope);
    return;
  }
  const size_t expected = target.parts.size();
  if (!is_iterable(value)) fail("cannot unpack non-iterable ", type_name(value), " object");
  Values items;
  iterate(value, budget_, [&](const Value& item) {
    items.push_back(item);
    return items.size() <= expected;
  });
  if (items.size() > expected)
    fail("too many values to unpack (expected ", std::to_string(expected), ")");
  if (items.size() < expected)
    fail("not enough values to unpack (expected ", std::to_string(expected), ", got ",
         std::to_string(items.size()), ")");
  for (size_t i = 0; i < expected; ++i) assign(*target.parts[i], items[i], scope);
}

void Interpreter::assign_attribute(const Expression& target, const Value& value,
                                   const ScopePtr& scope) {
  const Value* found = scope->find(target.name);
  if (found == nullptr || !found->is(Kind::kNamespace))
    fail("cannot assign attribute on non-namespace object");
  const std::string& name = target.constant.text();
  if (name.starts_with('_'))
    fail("Chat templates cannot store underscore-prefixed attributes on a namespace, but got ",
         quote_text(name), ". Please rename the attribute.");
  if (value.is_object() && value.object().holds_namespace)
    fail("a namespace inside a namespace is not supported");
  budget_.allocate(sizeof(Value));
  found->as<Namespace>().set(target.constant, value);
}

}  // namespace moetron::jinja
