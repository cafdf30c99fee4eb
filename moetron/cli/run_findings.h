// What a run that is planned would find where it begins, as far as it is on this machine.
#pragma once

#include <string>

#include "moetron/config/options.h"
#include "moetron/plan/hardware.h"
#include "moetron/run/resolve.h"

namespace moetron {

struct RunFindings {
  RunFacts facts;
  std::string absent;   // "data-path data/pages, load model"
  std::string assumed;  // instead of it: "; the tokenizer is ..."

  void miss(const std::string& option, const std::string& place);
};

// The newest checkpoint of --save, or of --load, or --load itself. What is not there is taken out
// of the options: they are then those of a fresh model.
void find_model(Options& options, RunFindings& found);
// The tokenizer's vocabulary; one that is missing is taken for the family's released one.
void find_vocabulary(const Options& options, RunFindings& found);

// Of the file that is named, or the built-in one.
Hardware planned_hardware(const Options& options);
// What a rank of that hardware refuses at its start; it is a GPU unless the device is said to be a
// CPU. Throws ConfigError.
void check_planned_device(const Options& options, const RunSpec& spec, const Hardware& hardware);

}  // namespace moetron
