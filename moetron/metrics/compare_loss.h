// Compares a number of two runs step by step.
#pragma once

#include <optional>
#include <string>

#include "moetron/metrics/compare_receipts.h"
#include "moetron/metrics/loss_history.h"

namespace moetron {

struct LargestDifference {
  double value = 0;
  int64_t step = 0;
};

// Over the steps that both runs have. A difference is |b - a|, a relative one that over the greater
// of |a| and |b|. Equal values, both not a number too, differ by 0; one that is finite and one that
// is not differ by infinity.
struct LossComparison {
  int64_t num_steps = 0;  // in common
  int64_t first_step = 0;
  int64_t last_step = 0;
  int64_t num_only_first = 0;  // steps that one run alone has
  int64_t num_only_second = 0;
  LargestDifference max_absolute;
  LargestDifference max_relative;
  double mean_absolute = 0;
  double mean_relative = 0;
  double tolerance = 0;
  std::optional<int64_t> first_past_tolerance;  // the first step whose relative difference is
};

LossComparison compare_histories(const History& first, const History& second, double tolerance);

// b - a at the common steps.
History difference_of(const History& first, const History& second);

// "relative difference 0.1 % on average, 0.5 % at most"
std::string relative_summary(const LossComparison& comparison);

// For people, a line each for steps, differences and verdict; and as one JSON object.
std::string describe(const LossComparison& comparison, const std::string& metric);
std::string to_json_text(const LossComparison& comparison, const std::string& metric,
                         const ReceiptComparison& receipts);

}  // namespace moetron
