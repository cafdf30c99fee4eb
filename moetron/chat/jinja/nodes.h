// A template as a tree.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using Statements = std::vector<Statement>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr more_positional;  // *values, or null
  ExpressionPtr more_named;       // **values, or null
};

enum class ExpressionKind {
  kConstant,
  kName,                // name
  kList,                // parts
  kTuple,               // parts
  kDict,                // parts: key, value, key, value, ...
  kAttribute,           // parts[0].name
  kItem,                // parts[0][parts[1]]
  kSlice,               // parts[0][parts[1]:parts[2]:parts[3]], null where absent
  kCall,                // parts[0](call)
  kFilter,              // parts[0] | name(call); parts[0] is null for the text of a block
  kTest,                // parts[0] is name(call)
  kNegative,            // parts[0]
  kPositive,            // parts[0]
  kNot,                 // parts[0]
  kAnd,                 // parts[0], parts[1]
  kOr,                  // parts[0], parts[1]
  kConditional,         // parts[0] if parts[1] else parts[2], null where absent
  kConcat,              // parts, joined by ~
  kBinary,              // parts[0] op parts[1]
  kCompare,             // parts[0] comparisons[0] parts[1] comparisons[1] parts[2] ...
  kNamespaceAttribute,  // a target of set: name.attribute, with the attribute in constant
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  int line = 1;
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> parts;
  std::vector<Comparison> comparisons;
  Operator op = Operator::kAdd;
  CallArguments call;
};

enum class StatementKind {
  kText,         // text
  kPrint,        // value
  kIf,           // branches; a branch without a condition is else
  kFor,          // target in value, if condition: body, else: other
  kSet,          // target = value
  kSetBlock,     // target = body, through filter where there is one
  kWith,         // targets = values: body
  kMacro,        // macro
  kCallBlock,    // value (a call), with macro as its caller
  kFilterBlock,  // body through filter
  kGeneration,   // body
  kScope,        // body, with names of its own
  kBreak,
  kContinue,
};

// A macro, or the body of a call block.
struct MacroNode {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  Statements body;
  // Which of the names that nobody declares the body reads.
  bool reads_caller = false;
  bool reads_kwargs = false;
  bool reads_varargs = false;
};

struct Branch {
  ExpressionPtr condition;
  Statements body;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 1;
  std::string text;
  ExpressionPtr value;
  ExpressionPtr target;
  ExpressionPtr condition;
  ExpressionPtr filter;
  std::vector<Branch> branches;
  std::vector<ExpressionPtr> targets;
  std::vector<ExpressionPtr> values;
  Statements body;
  Statements other;
  bool is_recursive = false;
  std::shared_ptr<MacroNode> macro;
};

struct Template {
  Statements body;
  bool marks_generations = false;  // has {% generation %} somewhere
  std::string literals;            // its text and strings, with NULs between them
};

}  // namespace moetron::jinja
