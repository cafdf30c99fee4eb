// The table of options as text: --help on a terminal, docs/options.md.
#pragma once

#include <string>
#include <vector>

#include "moetron/config/option_table.h"

namespace moetron {

std::string help_text();                 // the commands
std::string help_text(Command command);  // the options of one command
std::string options_page();              // docs/options.md

// One phrase on the standing of an option and of its values; empty: all of it works.
std::string standing_text(const OptionSpec& spec);
// The best standing that a value of the option has.
Standing best_standing(const OptionSpec& spec);
std::string table_cell(std::string text);  // of Markdown

std::string command_list(const std::vector<Command>& commands);  // "pretrain and generate"

}  // namespace moetron
