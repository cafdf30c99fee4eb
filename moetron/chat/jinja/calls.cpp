// Calls in templates: macros, methods, and the functions that every template has.
#include <algorithm>
#include <ctime>

#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/interpreter.h"
#include "moetron/chat/jinja/methods.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {

Value Interpreter::evaluate_call(const Expression& node, const ScopePtr& scope,
                                 const Value* caller) {
  const Value callee = evaluate(*node.parts[0], scope);
  Arguments arguments = evaluate_arguments(node.call, scope);
  if (caller != nullptr) arguments.named.emplace_back("caller", *caller);
  line_ = node.line;
  return call(callee, std::move(arguments));
}

Value Interpreter::call(const Value& callee, Arguments arguments) {
  const Budget::Level level(budget_);
  budget_.step();
  if (callee.is_undefined()) fail_undefined(callee);
  if (callee.is(Kind::kMethod)) {
    const Method& method = callee.as<Method>();
    return call_method(method.self, method.name, arguments, budget_);
  }
  if (callee.is(Kind::kMacro)) return call_macro(callee.as<Macro>(), std::move(arguments));
  if (callee.is(Kind::kFunction)) return call_function(callee.as<Function>().name, arguments);
  if (callee.is(Kind::kLoop)) return call_loop(callee.as<Loop>(), arguments);
  if (callee.is(Kind::kJoiner)) {
    Joiner& joiner = callee.as<Joiner>();
    const bool was_used = std::exchange(joiner.was_used, true);
    return make_string(was_used ? joiner.separator : "", budget_);
  }
  fail("'", type_name(callee), "' object is not callable");
}

Value Interpreter::call_macro(const Macro& macro, Arguments arguments) {
  const MacroNode& node = *macro.node;
  const ScopePtr around = macro.scope.lock();
  if (around == nullptr)
    fail("a macro is called outside of the block that defines it, which is not supported");
  const auto inner = std::make_shared<Scope>(around);
  // The value of a keyword, which is then used up.
  const auto take_named = [&arguments](std::string_view name, Value& value_out) {
    for (size_t i = 0; i < arguments.named.size(); ++i) {
      if (arguments.named[i].first != name) continue;
      value_out = arguments.named[i].second;
      arguments.named.erase(arguments.named.begin() + static_cast<std::ptrdiff_t>(i));
      return true;
    }
    return false;
  };
  const size_t num_parameters = node.parameters.size();
  std::vector<bool> is_given(num_parameters);
  for (size_t i = 0; i < num_parameters; ++i) {
    Value value;
    is_given[i] = i < arguments.positional.size() || take_named(node.parameters[i], value);
    if (is_given[i])
      inner->set(node.parameters[i],
                 i < arguments.positional.size() ? arguments.positional[i] : value);
  }
  const size_t first_default = num_parameters - node.defaults.size();
  for (size_t i = 0; i < num_parameters; ++i) {
    if (is_given[i]) continue;
    const std::string& name = node.parameters[i];
    inner->set(name, i >= first_default
                         ? evaluate(*node.defaults[i - first_default], inner)
                         : make_undefined("parameter " + quote_text(name) + " was not provided"));
  }
  if (node.reads_caller) {
    Value caller;
    take_named("caller", caller);
    inner->set("caller", caller.is_none() ? make_undefined("No caller defined") : caller);
  }
  if (node.reads_kwargs) {
    auto rest = std::make_shared<Dict>();
    for (const auto& [name, value] : arguments.named) rest->set(text_value(name), value);
    inner->set("kwargs", rest);
  } else if (arguments.find("caller") != nullptr) {
    fail(
        "macro ", quote_text(node.name),
        " was invoked with two values for the special caller argument. This is most likely a bug.");
  } else if (!arguments.named.empty()) {
    fail("macro ", quote_text(node.name), " takes no keyword argument ",
         quote_text(arguments.named[0].first));
  }
  const size_t num_used = std::min(num_parameters, arguments.positional.size());
  if (node.reads_varargs) {
    inner->set("varargs", make_tuple(Values(arguments.positional.begin() +
                                                static_cast<std::ptrdiff_t>(num_used),
                                            arguments.positional.end()),
                                     budget_));
  } else if (arguments.positional.size() > num_parameters) {
    fail("macro ", quote_text(node.name), " takes not more than ", std::to_string(num_parameters),
         " argument(s)");
  }
  return text_value(captured(node.body, inner));
}

Value Interpreter::call_loop(const Loop& loop, const Arguments& arguments) {
  if (loop.recursive == nullptr)
    fail("The loop must have the 'recursive' marker to be called recursively.");
  const Bound bound(arguments, "loop", {"iterable"}, 1);
  const ScopePtr scope = loop.scope.lock();
  if (scope == nullptr) fail("a loop is called outside of itself, which is not supported");
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  try {
    execute_for(*loop.recursive, bound[0], scope, loop.depth0 + 1);
  } catch (...) {
    out_ = outer;
    throw;
  }
  out_ = outer;
  return text_value(std::move(text));
}

Value Interpreter::call_function(const std::string& name, const Arguments& arguments) {
  if (name == "range") return make_range(arguments);
  if (name == "namespace") return make_namespace(arguments);
  if (name == "dict") return make_dict(arguments);
  if (name == "strftime_now") return format_time(arguments);
  if (name == "raise_exception") {
    const Bound bound(arguments, name, {"message"}, 1);
    fail(to_text(bound[0], budget_));
  }
  if (name == "joiner") {
    const Bound bound(arguments, name, {"sep"}, 0);
    return std::make_shared<Joiner>(bound.has(0) ? to_text(bound[0], budget_) : ", ");
  }
  if (name == "cycler") {
    if (arguments.positional.empty()) fail("at least one item has to be provided");
    return std::make_shared<Cycler>(arguments.positional);
  }
  fail("the function ", name, " is not supported");
}

Value Interpreter::make_range(const Arguments& arguments) {
  constexpr int64_t kMaxRange = 100'000;  // jinja2's sandbox
  if (!arguments.named.empty()) fail("range() takes no keyword arguments");
  const Values& values = arguments.positional;
  if (values.empty()) fail("range expected at least 1 argument, got 0");
  if (values.size() > 3)
    fail("range expected at most 3 arguments, got ", std::to_string(values.size()));
  const int64_t first = integer_of(values[0]);
  const int64_t start = values.size() == 1 ? 0 : first;
  const int64_t stop = values.size() == 1 ? first : integer_of(values[1]);
  const int64_t step = values.size() == 3 ? integer_of(values[2]) : 1;
  if (step == 0) fail("range() arg 3 must not be zero");
  constexpr int64_t kFar = int64_t{1} << 60;
  if (std::max({start, stop, step}) > kFar || std::min({start, stop, step}) < -kFar)
    fail("a range of such numbers is not supported");
  auto range = std::make_shared<Range>(start, stop, step);
  if (range->size() > kMaxRange)
    fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  return range;
}

Value Interpreter::make_namespace(const Arguments& arguments) {
  auto space = std::make_shared<Namespace>();
  const Value dict = make_dict(arguments);
  for (const auto& [name, value] : dict.as<Dict>().items) {
    if (name.is_string() && name.text().starts_with('_'))
      fail("Chat templates cannot store underscore-prefixed attributes on a namespace, but got ",
           quote_text(name.text()), ". Please rename the attribute.");
    if (value.is_object() && value.object().holds_namespace)
      fail("a namespace inside a namespace is not supported");
    space->set(name, value);
  }
  return space;
}

Value Interpreter::make_dict(const Arguments& arguments) {
  auto dict = std::make_shared<Dict>();
  if (arguments.positional.size() > 1)
    fail("dict expected at most 1 argument, got ", std::to_string(arguments.positional.size()));
  for (const Value& from : arguments.positional) {
    if (from.is(Kind::kDict)) {
      for (const auto& [name, value] : from.as<Dict>().items) dict->set(name, value);
      budget_.allocate(from.as<Dict>().items.size() * 4 * sizeof(Value));
      continue;
    }
    iterate(from, budget_, [&](const Value& item) {
      const Values pair = list_of(item, budget_);
      if (pair.size() != 2)
        fail("dictionary update sequence element has length ", std::to_string(pair.size()),
             "; 2 is required");
      dict->set(pair[0], pair[1]);
      return true;
    });
  }
  for (const auto& [name, value] : arguments.named) dict->set(text_value(name), value);
  return dict;
}

Value Interpreter::format_time(const Arguments& arguments) {
  const Bound bound(arguments, "strftime_now", {"format"}, 1);
  const std::string& format = string_of(bound[0], "strftime() argument 1");
  if (format.size() > 1000) fail("a format of so many characters is not supported");
  const std::time_t now = now_ ? *now_ : std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  std::string text(format.size() * 64 + 64, '\0');
  text.resize(std::strftime(text.data(), text.size(), format.c_str(), &parts));
  return make_string(std::move(text), budget_);
}

}  // namespace moetron::jinja
