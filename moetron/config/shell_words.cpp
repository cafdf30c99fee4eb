#include "moetron/config/shell_words.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/config/shell_tokens.h"

namespace moetron {
namespace {

using Kind = ShellToken::Kind;
using Tokens = std::vector<ShellToken>;

constexpr size_t kMostBlocks = 100;  // one within the other
constexpr size_t kMostOfTest = 120;  // characters of a test

struct Block {
  enum class Kind { kIf, kLoop, kCase, kGroup };
  Kind kind;
  bool is_taken = true;   // its present branch, entirely or perhaps
  int condition = 0;      // of that branch
  bool is_done = false;   // a branch whose test holds has come
  bool is_open = false;   // a branch has come whose test is not decided
  std::string text = {};  // of kIf the tests so far, of kCase the word
};

// "NAME=", "NAME+=": where the value begins; 0: no assignment.
size_t value_of_assignment(std::string_view word) {
  if (word.empty() || !begins_name(word[0])) return 0;
  size_t at = 0;
  while (at < word.size() && is_in_name(word[at])) ++at;
  if (word.substr(at).starts_with("+=")) return at + 2;
  return word.substr(at).starts_with("=") ? at + 1 : 0;
}

bool is_among(std::string_view word, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool declares(std::string_view word) {
  return is_among(word, {"export", "local", "declare", "readonly", "typeset"});
}

bool is_test(const Tokens& words) {
  return !words.empty() && is_among(words[0].text, {"[", "[[", "test", "!"});
}

class ScriptReader {
 public:
  ScriptReader(std::string_view text, const std::string& name, ShellContext context)
      : name_(name), tokens_(text, name), variables_(std::move(context)) {}

  std::vector<ShellCommand> read() {
    while (true) {
      try {
        if (!read_statement()) break;
      } catch (const InputError& error) {
        const std::string what = error.what();
        if (what.starts_with(name_)) throw;
        throw InputError(concat(name_, ", line ", line_, ": ", what));
      }
    }
    return std::move(commands_);
  }

 private:
  ShellToken next() {
    ShellToken token = tokens_.next();
    line_ = token.line;
    if (token.kind == Kind::kNewline && !heredoc_.empty())
      tokens_.skip_lines_until(std::exchange(heredoc_, ""));
    return token;
  }

  // Up to ; & | && || or a line's end, which is returned; redirections are left out.
  ShellToken read_words(Tokens& words) {
    while (true) {
      const ShellToken token = next();
      if (token.kind == Kind::kWord) {
        words.push_back(token);
        if (words.size() == 1 && begins_block(token.text)) return token;
        continue;
      }
      if (token.kind != Kind::kOperator) return token;
      if (token.text.find_first_of("<>") == std::string_view::npos) return token;
      skip_target(token, words);
    }
  }

  // "2> file", "<<EOF", "> >(tee log)": what a redirection is made of.
  void skip_target(const ShellToken& sign, Tokens& words) {
    const auto is_digits = [](std::string_view word) {
      return word.find_first_not_of("0123456789") == std::string_view::npos;
    };
    if (sign.is_attached && !words.empty() && is_digits(words.back().text)) words.pop_back();
    const char last = sign.text.back();
    if (last != '<' && last != '>' && last != '&' && last != '-') return;  // ">&1"
    const ShellToken target = next();
    if (target.kind == Kind::kWord && (sign.text == "<<" || sign.text == "<<-")) {
      heredoc_ = std::string(target.text);
      std::erase_if(heredoc_, [](char c) { return c == '\'' || c == '"' || c == '\\'; });
    }
  }

  static bool begins_block(std::string_view word) {
    return is_among(word, {"if", "elif", "then", "else", "fi", "while", "until", "for", "do",
                           "done", "case", "esac", "{", "}", "function"});
  }

  bool read_statement() {
    Tokens words;
    const ShellToken end = read_words(words);
    if (end.kind == Kind::kEnd && words.empty()) return false;
    if (words.size() == 1 && begins_block(words[0].text) && end.kind == Kind::kWord) {
      read_keyword(words[0].text);
      return true;
    }
    run(words, end);
    return true;
  }

  void read_keyword(std::string_view word) {
    if (word == "if") {
      push(Block::Kind::kIf);
      read_test();
    } else if (word == "elif" && in(Block::Kind::kIf)) {
      read_test();
    } else if (word == "else" && in(Block::Kind::kIf)) {
      enter_branch(true, concat("not ", blocks_.back().text));
    } else if (word == "while" || word == "until") {
      push(Block::Kind::kLoop);
      const Tokens words = read_to("do");
      enter_branch({}, shown(word, words));
    } else if (word == "for") {
      read_for();
    } else if (word == "case") {
      read_case();
    } else if (word == "{") {
      push(Block::Kind::kGroup);
    } else if (word == "function") {
      next();  // its name; what it does is read where it stands
    } else if (is_among(word, {"fi", "done", "esac", "}"})) {
      if (!blocks_.empty()) blocks_.pop_back();
    }
    end_guard();
  }

  void end_guard() {
    guard_.reset();
    guard_condition_ = 0;
  }

  bool in(Block::Kind kind) const { return !blocks_.empty() && blocks_.back().kind == kind; }

  void push(Block::Kind kind) {
    MT_CHECK_INPUT(blocks_.size() < kMostBlocks, "more than ", kMostBlocks,
                   " blocks stand one within the other");
    blocks_.push_back({.kind = kind});
  }

  // The words up to the keyword that ends a head.
  Tokens read_to(std::string_view keyword) {
    Tokens words;
    for (ShellToken token = next(); token.kind != Kind::kEnd; token = next()) {
      if (token.is_word(keyword)) break;
      if (token.kind != Kind::kNewline && !token.is_operator(";")) words.push_back(token);
    }
    return words;
  }

  static std::string shown(std::string_view first, const Tokens& words) {
    std::string text(first);
    for (const ShellToken& word : words) {
      if (text.size() > kMostOfTest) break;
      text += (text.empty() ? "" : " ") + std::string(word.text);
    }
    return text.size() > kMostOfTest ? text.substr(0, kMostOfTest) + "..." : text;
  }

  std::optional<bool> decide(const Tokens& words) {
    if (!is_test(words) && !(words.size() == 1 && is_among(words[0].text, {"true", "false"})))
      return {};
    std::vector<std::string_view> texts;
    for (const ShellToken& word : words) texts.push_back(word.text);
    return variables_.test(texts);
  }

  void read_test() {
    const Tokens words = read_to("then");
    const std::string text = shown("", words);
    enter_branch(decide(words), text);
    std::string& tests = blocks_.back().text;
    tests += (tests.empty() ? "" : " or ") + text;
  }

  // The next branch of the innermost block; of a decision that is not known, all are taken.
  void enter_branch(std::optional<bool> decision, const std::string& text) {
    Block& block = blocks_.back();
    block.is_taken = !block.is_done && decision.value_or(true);
    block.is_open = block.is_open || !decision;
    block.is_done = block.is_done || decision == true;
    block.condition = block.is_taken && block.is_open ? add_condition(text) : 0;
  }

  int add_condition(const std::string& text) {
    conditions_.push_back(text);
    return static_cast<int>(conditions_.size());
  }

  void read_for() {
    push(Block::Kind::kLoop);
    const Tokens words = read_to("do");
    if (!words.empty() && value_of_assignment(concat(words[0].text, "=")) != 0)
      variables_.forget(std::string(words[0].text));
  }

  void read_case() {
    push(Block::Kind::kCase);
    const Tokens words = read_to("in");
    blocks_.back().text = words.empty() ? "" : std::string(words[0].text);
    read_pattern();
  }

  // "a | b)" in front of a branch, or the end of it all.
  void read_pattern() {
    Tokens words;
    ShellToken token = next();
    for (; token.kind != Kind::kEnd && !token.is_operator(")"); token = next()) {
      if (token.is_word("esac") && words.empty()) {
        blocks_.pop_back();
        return;
      }
      if (token.kind == Kind::kWord) words.push_back(token);
    }
    const std::string word = blocks_.back().text;
    std::optional<bool> decision = false;
    for (const ShellToken& pattern : words) {
      const std::optional<bool> one = pattern.text == "*"
                                          ? std::optional(true)
                                          : variables_.test({"[[", word, "==", pattern.text, "]]"});
      if (one == true || decision == true) {
        decision = true;
      } else if (!one) {
        decision.reset();
      }
    }
    enter_branch(decision, concat("case ", word, " in ", shown("", words)));
  }

  bool is_taken() const {
    return std::all_of(blocks_.begin(), blocks_.end(),
                       [](const Block& block) { return block.is_taken; });
  }

  // Of the innermost branch that is not certain.
  int condition() const {
    if (guard_condition_ != 0) return guard_condition_;
    for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block)
      if (block->condition != 0) return block->condition;
    return 0;
  }

  // A command, and what its end means for the next one.
  void run(const Tokens& words, const ShellToken& end) {
    const bool is_guarded_out = guard_ == false;
    if (!words.empty() && is_taken() && !is_guarded_out) run_command(words);
    const bool joins = end.is_operator("&&") || end.is_operator("||");
    if (joins && is_test(words) && !is_guarded_out) {
      const bool negates = end.is_operator("||");
      const std::optional<bool> decision = decide(words);
      guard_ = decision ? std::optional(*decision != negates) : std::nullopt;
      guard_condition_ =
          decision ? guard_condition_ : add_condition((negates ? "not " : "") + shown("", words));
    } else if (!joins) {
      end_guard();
    }
    if (end.is_operator(";;") && in(Block::Kind::kCase)) read_pattern();
  }

  void run_command(const Tokens& words) {
    if (is_test(words)) return;
    size_t first = 0;
    while (first < words.size() && value_of_assignment(words[first].text) != 0)
      assign(words[first++].text);
    if (first == words.size()) return;
    if (declares(words[first].text)) {
      for (size_t i = first + 1; i < words.size(); ++i)
        if (value_of_assignment(words[i].text) != 0) assign(words[i].text);
      return;
    }
    if (words[first].is_word("read") || words[first].is_word("unset")) {
      const bool clears = words[first].is_word("unset") && condition() == 0;
      for (size_t i = first + 1; i < words.size(); ++i) {
        if (!begins_name(words[i].text.front())) continue;
        const std::string name(words[i].text);
        clears ? variables_.clear(name) : variables_.forget(name);
      }
      return;
    }
    if (words[first].is_word("shift") || words[first].is_word("set"))
      return change_arguments({words.begin() + static_cast<std::ptrdiff_t>(first), words.end()});
    ShellCommand command{.line = words[first].line};
    for (size_t i = first; i < words.size(); ++i) add_words(words[i].text, command.words);
    if (!command.words.empty()) commands_.push_back(std::move(command));
  }

  // shift, shift 2; set -- a b. What a test decides that nobody knows leaves them unknown.
  void change_arguments(const Tokens& words) {
    const bool shifts = words[0].is_word("shift");
    if (!shifts && (words.size() < 2 || !words[1].is_word("--"))) return;  // set -e
    if (condition() != 0) return variables_.forget_arguments();
    if (!shifts) {
      std::vector<ShellValue> arguments;
      for (size_t i = 2; i < words.size(); ++i)
        for (ShellValue& word : split_into_words(variables_.expand(words[i].text, 0)))
          arguments.push_back(std::move(word));
      return variables_.set_arguments(std::move(arguments));
    }
    std::optional<int64_t> count = 1;
    if (words.size() > 1) {
      const auto text = shell_text(variables_.expand(words[1].text, 0));
      count = text ? shell_number(*text) : std::nullopt;
    }
    if (!count || *count < 0) return variables_.forget_arguments();
    variables_.shift(static_cast<size_t>(*count));
  }

  void add_words(std::string_view raw, std::vector<ShellWord>& words) {
    for (const ShellValue& value : split_into_words(variables_.expand(raw, condition()))) {
      ShellWord word = shell_word(value);
      int depends_on = 0;
      for (const ShellPiece& piece : value)
        if (depends_on == 0) depends_on = piece.condition;
      if (depends_on != 0) word.condition = conditions_[static_cast<size_t>(depends_on - 1)];
      words.push_back(std::move(word));
    }
  }

  void assign(std::string_view word) {
    const size_t value = value_of_assignment(word);
    const bool appends = word[value - 2] == '+';
    const std::string name(word.substr(0, value - (appends ? 2 : 1)));
    const std::string_view raw = word.substr(value);
    if (raw.starts_with("(")) {
      std::vector<ShellValue> elements = elements_of(raw.substr(1, raw.size() - 2));
      if (!appends) variables_.clear(name);
      variables_.append(name, std::move(elements));
      return;
    }
    const std::string before = appends ? concat("${", name, ":-}") : "";
    variables_.assign(name, variables_.expand(concat(before, raw), condition(), name));
  }

  std::vector<ShellValue> elements_of(std::string_view raw) {
    std::vector<ShellValue> elements;
    ShellTokens inner(raw, name_, line_);
    for (ShellToken token = inner.next(); token.kind != Kind::kEnd; token = inner.next()) {
      if (token.kind != Kind::kWord) continue;
      for (ShellValue& word : split_into_words(variables_.expand(token.text, condition())))
        elements.push_back(std::move(word));
    }
    return elements;
  }

  const std::string name_;
  ShellTokens tokens_;
  ShellVariables variables_;
  std::vector<Block> blocks_;
  std::vector<std::string> conditions_;  // by number less 1
  std::vector<ShellCommand> commands_;
  std::optional<bool> guard_;  // whether the command behind && or || is run; empty: it is
  int guard_condition_ = 0;
  std::string heredoc_;  // the line that ends it
  int line_ = 1;
};

}  // namespace

ShellWord shell_word(const ShellValue& value) {
  ShellWord word{.text = text_of(value)};
  word.passed = shell_text(value);
  word.value = value;
  for (const ShellPiece& piece : value)
    if (!piece.open.empty()) word.open.push_back(piece.open);
  return word;
}

std::vector<ShellCommand> read_shell_script(std::string_view text, const std::string& name,
                                            ShellContext context) {
  return ScriptReader(text, name, std::move(context)).read();
}

}  // namespace moetron
