// The declarations of the table, one function per file of options. Only option_table.cpp and the
// table_*.cpp files include this header.
#pragma once

#include "moetron/config/option_table.h"

// MT_FIELD(optimizer, lr): the group's name, the field's name and the way to the field, so that an
// option's name cannot differ from its field's.
#define MT_FIELD(group, field) \
#group, #field, [](Options & options) -> OptionField { return field_of(options.group.field); }

namespace moetron {

// Of what shapes a vocabulary and is accepted by preprocess, too, which alone has an output-prefix.
inline std::string idle_in_token_files(const Options& options) {
  return options.preprocess.output_prefix.empty() ? "" : "token files hold the tokenizer's ids";
}

void declare_model(OptionTable& table);
void declare_rotary_and_mla(OptionTable& table);
void declare_moe(OptionTable& table);
void declare_training(OptionTable& table);
void declare_precision(OptionTable& table);
void declare_tuning(OptionTable& table);
void declare_optimizer(OptionTable& table);
void declare_files(OptionTable& table);  // checkpoints, logs, data, tokenizer
void declare_parallel(OptionTable& table);
void declare_memory(OptionTable& table);
void declare_kernels(OptionTable& table);
void declare_runtime(OptionTable& table);
void declare_curves(OptionTable& table);
void declare_bench(OptionTable& table);
void declare_convert(OptionTable& table);  // convert and compare
void declare_sft(OptionTable& table);
void declare_plan(OptionTable& table);
void declare_launch(OptionTable& table);
void declare_report(OptionTable& table);  // what several commands beside training give out
void declare_tools(OptionTable& table);   // simulate, preprocess, generate
void declare_explain(OptionTable& table);
void declare_megatron(OptionTable& table);  // Megatron's options that need no field here

}  // namespace moetron
