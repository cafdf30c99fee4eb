// Rules between options that hold whatever the model and the ranks are. Each function adds a
// sentence for each mistake, with the options and their values.
#pragma once

#include "moetron/base/mistakes.h"
#include "moetron/config/options.h"

namespace moetron {

// Those of the model's shape that are told before the model is made of them.
void check_model_options(const Options& options, Mistakes& mistakes);
// Whether training has what it cannot do without.
void check_training_needs(const Options& options, Mistakes& mistakes);
// Options that act only beside others, or contradict them.
void check_combinations(const Options& options, Mistakes& mistakes);
void check_learning_rate(const Options& options, Mistakes& mistakes);
void check_split(const std::vector<double>& split, Mistakes& mistakes);

// What the other commands need.
void check_preprocess(const Options& options, Mistakes& mistakes);
void check_generate(const Options& options, Mistakes& mistakes);
void check_chat(const Options& options, Mistakes& mistakes);
void check_convert(const Options& options, Mistakes& mistakes);
void check_compare(const Options& options, Mistakes& mistakes);
void check_curves(const Options& options, Command command, Mistakes& mistakes);
void check_simulate(const Options& options, Mistakes& mistakes);

}  // namespace moetron
