// The table of options as text: --help on a terminal, docs/options.md.
#pragma once

#include <string>
#include <vector>

#include "moetron/config/options.h"

namespace moetron {

std::string help_text();                 // the commands
std::string help_text(Command command);  // the options of one command
std::string options_page();              // docs/options.md

std::string command_list(const std::vector<Command>& commands);  // "pretrain and generate"

}  // namespace moetron
