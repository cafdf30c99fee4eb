#include "moetron/optim/lr_schedule.h"

#include <cmath>
#include <numbers>

#include "moetron/base/error.h"

namespace moetron {

void check_lr_schedule(const LrSchedule& schedule) {
  const LrSchedule& s = schedule;
  MT_CHECK_CONFIG(s.lr > 0 && std::isfinite(s.lr), "lr (", s.lr, ") must be a positive number");
  MT_CHECK_CONFIG(s.min_lr >= 0 && s.min_lr <= s.lr, "min-lr (", s.min_lr,
                  ") must lie between 0 and lr (", s.lr, ")");
  MT_CHECK_CONFIG(s.warmup_init_lr >= 0 && s.warmup_init_lr <= s.lr, "lr-warmup-init (",
                  s.warmup_init_lr, ") must lie between 0 and lr (", s.lr, ")");
  MT_CHECK_CONFIG(s.warmup_iters >= 0, "lr-warmup-iters (", s.warmup_iters,
                  ") must not be negative");
  MT_CHECK_CONFIG(s.decay_iters > 0, "lr-decay-iters (", s.decay_iters, ") must be positive");
  MT_CHECK_CONFIG(s.warmup_iters < s.decay_iters, "lr-warmup-iters (", s.warmup_iters,
                  ") must be smaller than lr-decay-iters (", s.decay_iters, ")");
}

double learning_rate(const LrSchedule& schedule, int64_t finished_iterations) {
  const LrSchedule& s = schedule;
  if (s.warmup_iters > 0 && finished_iterations <= s.warmup_iters) {
    return s.warmup_init_lr + (s.lr - s.warmup_init_lr) * static_cast<double>(finished_iterations) /
                                  static_cast<double>(s.warmup_iters);
  }
  if (s.style == LrDecayStyle::kConstant) return s.lr;
  if (finished_iterations > s.decay_iters) return s.min_lr;
  const double ratio = static_cast<double>(finished_iterations - s.warmup_iters) /
                       static_cast<double>(s.decay_iters - s.warmup_iters);
  const double coefficient = s.style == LrDecayStyle::kLinear
                                 ? 1.0 - ratio
                                 : 0.5 * (std::cos(std::numbers::pi * ratio) + 1.0);
  return s.min_lr + coefficient * (s.lr - s.min_lr);
}

}  // namespace moetron
