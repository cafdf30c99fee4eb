// The learning rate as a function of the iteration, as Megatron's OptimizerParamScheduler has it.
#pragma once

#include <cstdint>

#include "moetron/config/choices.h"

namespace moetron {

struct LrSchedule {
  double lr = 0;              // the highest, reached at the end of the warm-up
  double min_lr = 0;          // the lowest, reached at decay_iters; kConstant never decays
  double warmup_init_lr = 0;  // where the warm-up begins
  // In steps, of which those that were given in samples or shares may be no whole number.
  double warmup_iters = 0;
  double decay_iters = 0;  // counted from the start of training, warm-up included
  LrDecayStyle style = LrDecayStyle::kLinear;

  bool operator==(const LrSchedule&) const = default;
};

// The rate to use after `finished_iterations` steps: the first step uses 0, hence warmup_init_lr
// where there is a warm-up.
double learning_rate(const LrSchedule& schedule, int64_t finished_iterations);

}  // namespace moetron
