// The parts of a RunSpec that follow from single options. Of this folder alone.
#pragma once

#include "moetron/config/options.h"
#include "moetron/run/run_spec.h"

namespace moetron {

// How the model is computed and updated.
void fill_spec(const Options& options, RunSpec& spec);
// Which part of the model is trained. Throws ConfigError for names that the model does not have.
void fill_tuning(const Options& options, RunSpec& spec);
// What training alone has: rates, steps, data, places and logs.
void fill_training(const Options& options, RunSpec& spec);

}  // namespace moetron
