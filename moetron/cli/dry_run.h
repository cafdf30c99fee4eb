// moetron pretrain --dry-run, and sft.
#pragma once

#include "moetron/cli/run_findings.h"
#include "moetron/config/options.h"
#include "moetron/run/run_spec.h"

namespace moetron {

// Resolves a run that is planned as a start of `found.facts.world_size` ranks would, as far as its
// files are on this machine; what is not here goes into `found`, and out of the options.
// Fine-tuning reads its conversations, and puts what it chooses by them into the options. Throws
// as a start does.
RunSpec planned_spec(Options& options, Command command, RunFindings& found);

// Resolves the run as a start would, of `world_size` ranks, and prints what it would hold and how
// fast it would be. Fine-tuning reads its conversations, else no data is read. Reads config.json
// and tokenizer where there are any; what is named and is not on this machine is said in one line.
// Throws as a start does, and ConfigError where the run does not fit into the memory.
void run_dry_run(Options options, Command command, int64_t world_size);

}  // namespace moetron
