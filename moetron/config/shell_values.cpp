#include "moetron/config/shell_values.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <set>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/config/shell_tokens.h"

namespace moetron {
namespace {

constexpr size_t kMostBytes = size_t{64} << 20;  // over a whole script: variables may double

bool is_space(char c) {
  return is_blank(c) || c == '\n';
}

}  // namespace

std::string text_of(const ShellValue& value) {
  std::string text;
  for (const ShellPiece& piece : value) text += piece.text;
  return text;
}

bool is_known(const ShellValue& value) {
  return std::all_of(value.begin(), value.end(),
                     [](const ShellPiece& piece) { return piece.open.empty(); });
}

namespace {

// Of what is not known in it; empty: all is known.
std::string first_open(const ShellValue& value) {
  for (const ShellPiece& piece : value)
    if (!piece.open.empty()) return piece.open;
  return "";
}

}  // namespace

std::optional<std::string> shell_text(const ShellValue& value) {
  std::string text;
  for (const ShellPiece& piece : value) {
    if (!piece.open.empty() && !piece.is_unset) return {};
    if (piece.open.empty()) text += piece.text;
  }
  return text;
}

std::vector<ShellValue> split_into_words(const ShellValue& value) {
  std::vector<ShellValue> words;
  bool in_word = false;
  const auto append = [&](const ShellPiece& piece, std::string text) {
    if (!in_word) words.emplace_back();
    in_word = true;
    words.back().push_back({.text = std::move(text),
                            .open = piece.open,
                            .is_unset = piece.is_unset,
                            .condition = piece.condition});
  };
  for (const ShellPiece& piece : value) {
    if (piece.breaks) in_word = false;
    if (!piece.splits) {
      append(piece, piece.text);
      continue;
    }
    for (size_t at = 0; at < piece.text.size();) {
      const auto begin = piece.text.begin() + static_cast<std::ptrdiff_t>(at);
      if (is_space(*begin)) {
        in_word = false;
        ++at;
        continue;
      }
      const auto end = std::find_if(begin, piece.text.end(), is_space);
      append(piece, std::string(begin, end));
      at += static_cast<size_t>(end - begin);
    }
  }
  return words;
}

// One word under expansion.
class ShellExpansion {
 public:
  ShellExpansion(ShellVariables& variables, int condition, std::string self)
      : variables_(variables), condition_(condition), self_(std::move(self)) {}

  // `quoted`: within double quotes, where a single quote means itself.
  void expand(std::string_view raw, bool quoted, int depth) {
    MT_CHECK_INPUT(depth <= kMostNested, "values are nested more than ", kMostNested, " deep");
    for (size_t at = 0; at < raw.size();) {
      const size_t plain =
          std::min(raw.find_first_of(quoted ? "\\\"`$" : "\\\"'`$", at), raw.size());
      if (plain > at) add_literal(raw.substr(at, plain - at));
      if (plain == raw.size()) return;
      at = raw[plain] == '$' ? expand_dollar(raw, plain, quoted, depth)
                             : expand_quotes(raw, plain, quoted, depth);
    }
  }

  ShellValue take() { return std::move(value_); }

 private:
  // A backslash or quotes at `at`; returns their end.
  size_t expand_quotes(std::string_view raw, size_t at, bool quoted, int depth) {
    const size_t end = end_of_part(raw, at);
    const std::string_view part = raw.substr(at, end - at);
    if (part[0] == '\\') {
      add_escaped(part, quoted);
    } else if (part[0] == '`') {
      add_open(part, std::string(part));
    } else {
      const std::string_view inner = part.substr(1, part.size() - 2);
      const size_t before = value_.size();
      if (part[0] == '"') expand(inner, true, depth + 1);
      // "" is a word, too, but not the elements of an array that has none.
      const bool is_list = inner == "$@" || inner.find("[@]") != std::string_view::npos;
      if (part[0] == '\'') {
        add_literal(inner);
      } else if (value_.size() == before && !is_list) {
        add_literal("");
      }
    }
    return end;
  }

  static size_t end_of_name(std::string_view raw, size_t at) {
    if (at < raw.size() && !begins_name(raw[at]))
      return std::string_view("0123456789@*#?$!-").find(raw[at]) != std::string_view::npos ? at + 1
                                                                                           : at;
    while (at < raw.size() && is_in_name(raw[at])) ++at;
    return at;
  }

  void add_literal(std::string_view text) {
    variables_.spend(text.size());
    const bool joins = !value_.empty() && value_.back().condition == condition_ &&
                       value_.back().open.empty() && !value_.back().splits;
    if (joins) {
      value_.back().text += text;
    } else {
      variables_.spend(sizeof(ShellPiece));
      value_.push_back({.text = std::string(text), .condition = condition_});
    }
  }

  void add_escaped(std::string_view part, bool quoted) {
    const std::string_view escaped = part.substr(1);
    if (escaped == "\n") return;  // a joined line
    const bool means_itself = !quoted || escaped.empty() ||
                              std::string_view("$`\"\\").find(escaped[0]) != std::string_view::npos;
    add_literal(means_itself ? escaped : part);
  }

  void add_open(std::string_view text, std::string what, bool is_unset = false) {
    variables_.spend(text.size() + sizeof(ShellPiece));
    value_.push_back({.text = std::string(text),
                      .open = std::move(what),
                      .is_unset = is_unset,
                      .condition = condition_});
  }

  // `depends`: on the present condition, if on none of its own.
  void add_value(const ShellValue& value, bool quoted, bool breaks, bool depends) {
    bool is_first = true;
    for (ShellPiece piece : value) {
      variables_.spend(piece.text.size() + sizeof(ShellPiece));
      piece.splits = !quoted && piece.open.empty();
      piece.breaks = breaks && is_first;
      if (piece.condition == 0 && depends) piece.condition = condition_;
      is_first = false;
      value_.push_back(std::move(piece));
    }
  }

  void add_elements(const std::vector<ShellValue>& elements, bool quoted, bool apart,
                    bool depends) {
    for (size_t i = 0; i < elements.size(); ++i) {
      if (i > 0 && !apart) add_value({{.text = " "}}, quoted, false, depends);
      add_value(elements[i], quoted, apart && i > 0, depends);
    }
  }

  // A dollar sign at `at`; returns the end of what it begins.
  size_t expand_dollar(std::string_view raw, size_t at, bool quoted, int depth) {
    const size_t end = end_of_part(raw, at);
    const std::string_view whole = raw.substr(at, end - at);
    if (whole.starts_with("$((") && whole.ends_with("))")) {
      add_arithmetic(whole, depth);
    } else if (whole.starts_with("$(")) {
      add_open(whole, std::string(whole));
    } else if (whole.starts_with("${")) {
      expand_braces(whole.substr(2, whole.size() - 3), quoted, depth);
    } else {
      const size_t end_of_variable = end_of_name(raw, at + 1);
      const std::string name(raw.substr(at + 1, end_of_variable - at - 1));
      if (name.empty()) {
        add_literal("$");
      } else {
        add_variable(name, quoted);
      }
      return end_of_variable;
    }
    return end;
  }

  void add_variable(const std::string& name, bool quoted) {
    if (name == "@" || name == "*") return add_arguments(quoted, name == "@");
    if (name == "#" && variables_.are_arguments_known_)
      return add_literal(std::to_string(variables_.arguments_.size()));
    if (const auto* found = variables_.find(name)) {
      if (!found->empty()) add_value(found->front(), quoted, false, name != self_);
    } else {
      const ShellPiece piece = variables_.valueless(name);
      add_open(piece.text, piece.open, piece.is_unset);
    }
  }

  // "$@" of a script that was given none is no word.
  void add_arguments(bool quoted, bool apart) {
    if (!variables_.are_arguments_known_) return add_open(apart ? "$@" : "$*", "@");
    std::vector<ShellValue> elements;
    for (const std::vector<ShellValue>& argument : variables_.arguments_)
      elements.push_back(argument.front());
    add_elements(elements, quoted, apart, true);
  }

  void add_arithmetic(std::string_view whole, int depth) {
    ShellExpansion inner(variables_, condition_, self_);
    inner.expand(whole.substr(3, whole.size() - 5), true, depth + 1);
    const ShellValue text = inner.take();
    std::string open;
    const auto number = [&](std::string_view name) -> std::optional<int64_t> {
      const auto* found = variables_.find(std::string(name));
      if (found == nullptr && open.empty()) open = name;
      if (found != nullptr && !found->empty() && open.empty()) open = first_open(found->front());
      return found == nullptr || found->empty() || !is_known(found->front())
                 ? std::nullopt
                 : shell_number(text_of(found->front()));
    };
    if (open.empty()) open = first_open(text);
    const auto result = is_known(text) ? shell_arithmetic(text_of(text), number) : std::nullopt;
    if (result) {
      add_literal(std::to_string(*result));
    } else {
      add_open(whole, open.empty() ? std::string(whole) : open);
    }
  }

  // What stands within ${ }.
  void expand_braces(std::string_view inner, bool quoted, int depth) {
    const std::string whole = concat("${", inner, "}");
    const bool is_place = !inner.empty() && std::isdigit(static_cast<unsigned char>(inner[0])) != 0;
    const size_t end = is_place ? std::min(inner.find_first_not_of("0123456789"), inner.size())
                                : end_of_name(inner, 0);
    const std::string name(inner.substr(0, end));
    std::string_view rest = inner.substr(end);
    if (name.empty() || name == "#") return add_open(whole, whole);
    if (name == "@" || name == "*") return add_arguments(quoted, name == "@");
    const bool is_list = rest.starts_with("[@]") || rest.starts_with("[*]");
    const bool apart = rest.starts_with("[@]");
    if (is_list) rest.remove_prefix(3);
    if (rest.starts_with("[0]")) rest.remove_prefix(3);
    const std::vector<ShellValue>* found = variables_.find(name);
    const auto add_found = [&] {
      if (is_list) {
        if (found != nullptr) add_elements(*found, quoted, apart, name != self_);
      } else {
        add_variable(name, quoted);
      }
    };
    if (rest.empty()) return add_found();
    const bool if_empty = rest.front() == ':';  // ${X:-default}: of an empty one, too
    if (if_empty) rest.remove_prefix(1);
    const char sign = rest.empty() ? '\0' : rest.front();
    if (sign != '-' && sign != '=' && sign != '+' && sign != '?') return add_open(whole, whole);
    const bool is_there = found != nullptr && !found->empty() &&
                          (!if_empty || shell_text(found->front()) != std::string());
    const std::string_view other = rest.substr(1);
    if (sign == '+') {
      if (is_there) expand(other, quoted, depth + 1);
    } else if (is_there || sign == '?') {
      add_found();
    } else if (sign == '=' && !is_list) {
      ShellExpansion value(variables_, condition_, self_);
      value.expand(other, quoted, depth + 1);
      variables_.assign(name, value.take());
      add_variable(name, quoted);
    } else {
      expand(other, quoted, depth + 1);
    }
  }

  ShellVariables& variables_;
  int condition_;
  std::string self_;
  ShellValue value_;
};

ShellVariables::ShellVariables(ShellContext context) : context_(std::move(context)) {
  for (const std::string& word : context_.arguments) arguments_.push_back({{{.text = word}}});
}

void ShellVariables::set_arguments(std::vector<ShellValue> arguments) {
  arguments_.clear();
  for (ShellValue& argument : arguments) arguments_.push_back({std::move(argument)});
  are_arguments_known_ = true;
}

void ShellVariables::shift(size_t count) {
  if (count <= arguments_.size())  // otherwise the shell leaves them alone
    arguments_.erase(arguments_.begin(), arguments_.begin() + static_cast<std::ptrdiff_t>(count));
}

ShellValue ShellVariables::expand(std::string_view raw, int condition, const std::string& self) {
  ShellExpansion expansion(*this, condition, self);
  expansion.expand(raw, false, 0);
  return expansion.take();
}

void ShellVariables::spend(size_t bytes) {
  spent_ += bytes;
  MT_CHECK_INPUT(spent_ <= kMostBytes, "the variables grow to more than ", kMostBytes >> 20,
                 " MiB of text");
}

ShellValue ShellVariables::unknown(const std::string& name) {
  return {{.text = "$" + name, .open = name}};
}

ShellPiece ShellVariables::valueless(const std::string& name) const {
  static const std::set<std::string> kOfTheShell{
      "0",      "#",        "?",        "$",          "!",           "-",
      "_",      "EUID",     "FUNCNAME", "HOSTNAME",   "HOSTTYPE",    "IFS",
      "LINENO", "MACHTYPE", "OSTYPE",   "PIPESTATUS", "PPID",        "PWD",
      "RANDOM", "SECONDS",  "SHELL",    "UID",        "EPOCHSECONDS"};
  const bool is_of_shell = kOfTheShell.contains(name) || name.starts_with("BASH");
  const bool is_place = std::isdigit(static_cast<unsigned char>(name[0])) != 0;
  return {.text = (name.size() > 1 && is_place) ? "${" + name + "}" : "$" + name,
          .open = name,
          .is_unset = !is_of_shell && (!is_place || are_arguments_known_)};
}

const std::vector<ShellValue>* ShellVariables::find(const std::string& name) {
  if (std::isdigit(static_cast<unsigned char>(name[0])) != 0) {
    const auto place = shell_number(name);
    const bool is_there =
        are_arguments_known_ && place && *place >= 1 && *place <= std::ssize(arguments_);
    return is_there ? &arguments_[static_cast<size_t>(*place - 1)] : nullptr;
  }
  const auto known = variables_.find(name);
  if (known != variables_.end()) return &known->second;
  const std::optional<std::string> text = context_.variable(name);
  return text ? &(variables_[name] = {{{.text = *text}}}) : nullptr;
}

void ShellVariables::assign(const std::string& name, const ShellValue& value) {
  ShellValue text;
  for (ShellPiece piece : value) {  // the elements of an array stand apart
    if (std::exchange(piece.breaks, false)) text.push_back({.text = " "});
    text.push_back(std::move(piece));
  }
  variables_[name] = {std::move(text)};
}

void ShellVariables::append(const std::string& name, std::vector<ShellValue> elements) {
  std::vector<ShellValue>& held = variables_[name];
  std::move(elements.begin(), elements.end(), std::back_inserter(held));
}

}  // namespace moetron
