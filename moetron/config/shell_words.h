// The commands of a shell script with their words as the shell would pass them. The script is read,
// never run: loops are gone through once, files that it sources are not looked at, and what a
// command would print stays open.
//
// A branch whose test is decided by what is known is taken or left out, as the shell would. Of one
// that is not, every branch is taken, and its words say on which test they depend.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moetron/config/shell_values.h"

namespace moetron {

struct ShellWord {
  std::string text = {};               // what is not known stands in it as "$NAME" or "$(command)"
  std::vector<std::string> open = {};  // the names of what is not known
  std::string condition = {};  // the test it depends on, as written; empty: it is always there
  // As the shell would pass it, who makes nothing of what nobody has set; empty: a command decides.
  std::optional<std::string> passed = text;
  ShellValue value = {};  // what it was made of; empty: of a list of words, as it stands
};

// Without its condition.
ShellWord shell_word(const ShellValue& value);

struct ShellCommand {
  int line = 0;
  std::vector<ShellWord> words = {};  // without assignments and redirections
};

// `name` of the file, for messages. Throws InputError, naming the line, for what is no script: a
// quote or bracket that is not closed, nesting or growth beyond bounds.
std::vector<ShellCommand> read_shell_script(std::string_view text, const std::string& name,
                                            ShellContext context);

}  // namespace moetron
