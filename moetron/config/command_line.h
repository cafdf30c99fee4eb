// The command line: moetron COMMAND --option value ... [--config run.toml].
//
// A small parser of its own instead of CLI11: here a flag may take True or False, a list runs up to
// the next option, a name may bring its value along (--bf16), values have a standing of their own,
// and every rule is read off the table, which a library would want to hear a second time.
#pragma once

#include <string>
#include <vector>

#include "moetron/config/options.h"

namespace moetron {

struct ParsedCommandLine {
  Command command = Command::kPretrain;  // meaningless when help was asked for without a command
  Options options;
  std::vector<std::string> notices;  // options without effect, one line each, saying why
  bool help = false;                 // print help_text, do nothing else
  std::string help_text;
  std::vector<std::string> given;     // names of all options that were given, the file's too
  std::vector<std::string> typed;     // names of the options that the command line itself gives
  std::vector<std::string> launched;  // of launch: the command that ranks run, with its arguments
};

// argv[0] is the program. The last of a repeated option wins, and the command line wins over the
// file of --config. Throws ConfigError with every mistake found, one a line.
ParsedCommandLine parse_command_line(int argc, const char* const* argv);

}  // namespace moetron
