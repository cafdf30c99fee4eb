#include "moetron/run/lr_schedule.h"

#include <cmath>
#include <numbers>

namespace moetron {

double learning_rate(const LrSchedule& schedule, int64_t finished_iterations) {
  const LrSchedule& s = schedule;
  const auto finished = static_cast<double>(finished_iterations);
  if (s.warmup_iters > 0 && finished <= s.warmup_iters) {
    return s.warmup_init_lr + (s.lr - s.warmup_init_lr) * finished / s.warmup_iters;
  }
  if (s.style == LrDecayStyle::kConstant) return s.lr;
  if (finished > s.decay_iters) return s.min_lr;
  const double ratio = (finished - s.warmup_iters) / (s.decay_iters - s.warmup_iters);
  const double coefficient = s.style == LrDecayStyle::kLinear
                                 ? 1.0 - ratio
                                 : 0.5 * (std::cos(std::numbers::pi * ratio) + 1.0);
  return s.min_lr + coefficient * (s.lr - s.min_lr);
}

}  // namespace moetron
