// The command of a shell script that trains: Megatron's, the guide's or our own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/config/shell_words.h"

namespace moetron {

struct TrainingCommand {
  std::string program;  // "pretrain_gpt.py", "moetron"; empty: a mere list of arguments
  std::vector<ShellWord> arguments;  // behind the program
  std::vector<ShellWord> launcher;   // torchrun, srun or mpirun and its options; empty: none
  std::optional<int64_t> num_ranks;  // as the launcher has it; empty: it does not say, or is open
  std::vector<std::string> open_ranks;  // what the number hangs on and nobody says

  bool starts_by_torchrun() const;

  bool is_ours() const { return program == "moetron"; }
};

// Finds it in the text of a script, or of a list of arguments. Throws InputError where there is
// none, or for what is no script.
TrainingCommand find_training_command(std::string_view text, const std::string& name,
                                      ShellContext context);
// The same of words that a shell has read.
TrainingCommand training_command_of(const std::vector<std::string>& words);

}  // namespace moetron
