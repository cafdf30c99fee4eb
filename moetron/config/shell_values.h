// What words of a shell script stand for: quotes, variables, arrays and whole-number arithmetic. No
// command is run: what it would print stays open, as a variable does that nobody has set.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moetron {

// A stretch of an expanded word.
struct ShellPiece {
  std::string text = {};
  std::string open = {};  // what is not known: the name of a variable, or a command; empty: known
  bool is_unset = false;  // it is open since nobody has set it: the shell makes nothing of it
  int condition = 0;      // the number of the test that it depends on; 0: none
  bool splits = false;    // blanks in it separate words
  bool breaks = false;    // a word ends in front of it: the next element of an array
};
using ShellValue = std::vector<ShellPiece>;

std::string text_of(const ShellValue& value);
bool is_known(const ShellValue& value);
// As the shell would have it, without what nobody has set; empty where a command decides.
std::optional<std::string> shell_text(const ShellValue& value);
// As the shell splits it; without words where nothing is left.
std::vector<ShellValue> split_into_words(const ShellValue& value);

struct ShellContext {
  // Of the environment; empty: nobody has set it.
  std::function<std::optional<std::string>(const std::string& name)> variable;
  std::vector<std::string> arguments;  // $1 and on
};

class ShellVariables {
 public:
  explicit ShellVariables(ShellContext context);

  // `raw` as it is written. What it is made of depends on `condition`, but for the former value of
  // the variable `self`. Throws InputError for what is nested too deeply, and once all that was
  // expanded exceeds a bound.
  ShellValue expand(std::string_view raw, int condition, const std::string& self = "");
  void assign(const std::string& name, const ShellValue& value);
  // To an array, which may be empty.
  void append(const std::string& name, std::vector<ShellValue> elements);
  void clear(const std::string& name) { variables_[name].clear(); }
  void forget(const std::string& name) { variables_[name] = {unknown(name)}; }
  // $1 and on. `shift` drops the first of them; `forget_arguments` where nobody knows how many.
  void set_arguments(std::vector<ShellValue> arguments);
  void shift(size_t count);
  void forget_arguments() { are_arguments_known_ = false; }

  // Empty where it depends on what is not known. `words` of the test, its brackets included.
  std::optional<bool> test(const std::vector<std::string_view>& words);

 private:
  friend class ShellExpansion;
  // A variable whose value a command decides.
  static ShellValue unknown(const std::string& name);
  // One without a value: the shell makes nothing of it, but for those that it sets by itself.
  ShellPiece valueless(const std::string& name) const;
  // The elements of a variable; null: nobody has set it.
  const std::vector<ShellValue>* find(const std::string& name);
  std::optional<bool> simple_test(const std::vector<std::string_view>& words, bool is_single);
  void spend(size_t bytes);

  ShellContext context_;
  std::vector<std::vector<ShellValue>> arguments_;  // each of one element, as variables are
  bool are_arguments_known_ = true;
  std::map<std::string, std::vector<ShellValue>> variables_;
  size_t spent_ = 0;  // bytes
};

// A text that is a whole number of 64 bits, but for blanks around it; empty: it is none.
std::optional<int64_t> shell_number(std::string_view text);
// "2*(N+1)" in whole numbers of 64 bits; `number` of a name, or empty. Empty where anything is not
// known, overflows or is no such expression.
std::optional<int64_t> shell_arithmetic(
    std::string_view text, const std::function<std::optional<int64_t>(std::string_view)>& number);

}  // namespace moetron
