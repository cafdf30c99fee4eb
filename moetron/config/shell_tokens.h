// A shell script cut into words and operators, as written: quotes, variables and arrays stay as
// they are. shell_values.h expands them, shell_words.h reads whole scripts.
#pragma once

#include <string>
#include <string_view>

namespace moetron {

// How deep brackets, quotes, values and sums may be nested in a script.
inline constexpr int kMostNested = 40;

struct ShellToken {
  enum class Kind { kWord, kOperator, kNewline, kEnd };
  Kind kind = Kind::kEnd;
  std::string_view text;     // of the script; of a word with all its quotes
  int line = 0;              // counted from 1
  bool is_attached = false;  // nothing stands between it and the token before

  bool is_word(std::string_view wanted) const { return kind == Kind::kWord && text == wanted; }
  bool is_operator(std::string_view wanted) const {
    return kind == Kind::kOperator && text == wanted;
  }
  bool ends_command() const { return kind == Kind::kNewline || kind == Kind::kEnd; }
};

// Comments and joined lines are left out. NAME=( ... ) is one word.
class ShellTokens {
 public:
  // `name` of the file, for messages. The text must outlive the object and its tokens.
  ShellTokens(std::string_view text, std::string name, int first_line = 1);

  // Throws InputError for a quote or bracket that is not closed, or that is nested too deeply.
  ShellToken next();
  // Skips lines up to the one that is `delimiter`, as behind <<EOF. To be called behind a newline.
  void skip_lines_until(std::string_view delimiter);

 private:
  bool skip_blanks();
  size_t end_of_word(size_t at) const;
  size_t end_of_operator(size_t at) const;

  std::string_view text_;
  std::string name_;
  size_t at_ = 0;
  int line_;
};

// Where what begins at `text[at]`, a quote, a backslash or a dollar sign, has its end; a character
// that begins nothing ends behind itself. Throws InputError with a sentence that names no place.
size_t end_of_part(std::string_view text, size_t at, int depth = 0);

bool is_blank(char c);
bool begins_name(char c);
bool is_in_name(char c);

}  // namespace moetron
