// moetron pretrain --dry-run, and sft.
#pragma once

#include "moetron/config/options.h"

namespace moetron {

// Resolves the run as a start would, of `world_size` ranks, and prints what it would hold and how
// fast it would be. Fine-tuning reads its conversations, else no data is read. Reads config.json
// and tokenizer where there are any; what is named and is not on this machine is said in one line.
// Throws as a start does, and ConfigError where the run does not fit into the memory.
void run_dry_run(Options options, Command command, int64_t world_size);

}  // namespace moetron
