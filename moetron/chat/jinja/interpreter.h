// Runs a template.
#pragma once

#include <ctime>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moetron/chat/jinja/arguments.h"
#include "moetron/chat/jinja/loop.h"
#include "moetron/chat/jinja/nodes.h"

namespace moetron::jinja {

// The names of a block: what is set in a loop, a macro or a with is gone behind it.
struct Scope {
  explicit Scope(std::shared_ptr<Scope> outer) : parent(std::move(outer)) {}
  const Value* find(std::string_view name) const;  // here or further out
  void set(std::string_view name, Value value);    // here

  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> names;
};
using ScopePtr = std::shared_ptr<Scope>;

// A macro with the names that it sees. They live as long as the block that it stands in.
struct Macro : Object {
  Macro(std::shared_ptr<MacroNode> of, const ScopePtr& around)
      : Object(Kind::kMacro), node(std::move(of)), scope(around) {}
  std::shared_ptr<MacroNode> node;
  std::weak_ptr<Scope> scope;
};

class Interpreter {
 public:
  Interpreter(Budget& budget, std::optional<std::time_t> now) : budget_(budget), now_(now) {}

  void define(const std::string& name, Value value);
  // Throws Failure; line() then tells where.
  void run(const Template& tree);

  int line() const { return line_; }
  const std::string& output() const { return output_; }
  // Bytes [begin, end) of each generation block, as transformers counts them: from the text that
  // was finished when the block began.
  const std::vector<std::pair<size_t, size_t>>& generations() const { return generations_; }

  // For iterators that evaluate.
  bool holds(const Expression& condition, const Expression& target, const Value& item,
             const ScopePtr& scope);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // Statements (interpreter.cpp).
  Flow execute(const Statements& body, const ScopePtr& scope);
  Flow execute(const Statement& statement, const ScopePtr& scope);
  Flow execute_if(const Statement& statement, const ScopePtr& scope);
  void execute_for(const Statement& statement, const Value& values, const ScopePtr& scope,
                   int64_t depth);
  Flow execute_with(const Statement& statement, const ScopePtr& scope);
  void execute_set(const Statement& statement, const ScopePtr& scope);
  void execute_set_block(const Statement& statement, const ScopePtr& scope);
  void execute_generation(const Statement& statement, const ScopePtr& scope);
  void write(std::string_view text);
  std::string captured(const Statements& body, const ScopePtr& scope);
  void assign(const Expression& target, const Value& value, const ScopePtr& scope);
  void assign_attribute(const Expression& target, const Value& value, const ScopePtr& scope);

  // Expressions (evaluate.cpp).
  Value evaluate(const Expression& node, const ScopePtr& scope);
  Value evaluate_node(const Expression& node, const ScopePtr& scope);
  Value evaluate_name(const Expression& node, const ScopePtr& scope);
  Value evaluate_dict(const Expression& node, const ScopePtr& scope);
  Value evaluate_compare(const Expression& node, const ScopePtr& scope);
  Value evaluate_concat(const Expression& node, const ScopePtr& scope);
  Value evaluate_slice(const Expression& node, const ScopePtr& scope);
  Value evaluate_filter(const Expression& node, const ScopePtr& scope);
  Values evaluate_all(const std::vector<ExpressionPtr>& nodes, const ScopePtr& scope);
  Arguments evaluate_arguments(const CallArguments& call, const ScopePtr& scope);

  // Calls (calls.cpp).
  Value evaluate_call(const Expression& node, const ScopePtr& scope, const Value* caller = nullptr);
  Value call(const Value& callee, Arguments arguments);
  Value call_macro(const Macro& macro, Arguments arguments);
  Value call_function(const std::string& name, const Arguments& arguments);
  Value call_loop(const Loop& loop, const Arguments& arguments);
  Value make_range(const Arguments& arguments);
  Value make_namespace(const Arguments& arguments);
  Value make_dict(const Arguments& arguments);
  Value format_time(const Arguments& arguments);

  Budget& budget_;
  std::optional<std::time_t> now_;
  std::deque<std::string> names_;  // of defined variables
  ScopePtr context_ = std::make_shared<Scope>(nullptr);
  std::string output_;                  // of the template itself
  std::string* out_ = &output_;         // where text goes at the moment
  const std::string* block_ = nullptr;  // the text that a block's filter works on
  std::vector<std::pair<size_t, size_t>> generations_;
  int line_ = 1;
};

}  // namespace moetron::jinja
