// The subcommands. Each returns the process's exit code, and throws Error for what went wrong.
#pragma once

#include "moetron/config/command_line.h"

namespace moetron {

inline constexpr int kExitDiffers = 1;  // of commands that compare, as of cmp and diff

int run_pretrain(const ParsedCommandLine& parsed);  // and sft
int run_preprocess(const ParsedCommandLine& parsed);
int run_generate(const ParsedCommandLine& parsed);
int run_chat(const ParsedCommandLine& parsed);
int run_simulate(const ParsedCommandLine& parsed);
int run_explain(const ParsedCommandLine& parsed);
int run_plan(const ParsedCommandLine& parsed);
int run_compare_loss(const ParsedCommandLine& parsed);
int run_plot(const ParsedCommandLine& parsed);
int run_convert(const ParsedCommandLine& parsed);
int run_compare(const ParsedCommandLine& parsed);
int run_bench(const ParsedCommandLine& parsed);
int run_launch(const ParsedCommandLine& parsed);
int run_demo(const ParsedCommandLine& parsed);
int run_doctor(const ParsedCommandLine& parsed);

// Whether the command runs as one of several ranks that work together.
bool has_ranks(Command command);

// Says, one line each, which options have no effect and why.
void say_notices(const ParsedCommandLine& parsed);

}  // namespace moetron
