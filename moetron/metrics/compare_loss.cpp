#include "moetron/metrics/compare_loss.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/metrics/step_record.h"

namespace moetron {
namespace {

// Calls on_pair(step, a, b) for the steps that both have.
template <class OnPair>
void for_common_steps(const History& first, const History& second, const OnPair& on_pair) {
  for (auto a = first.begin(), b = second.begin(); a != first.end() && b != second.end();) {
    if (a->step == b->step) {
      on_pair(a->step, a->value, b->value);
      ++a;
      ++b;
    } else {
      a->step < b->step ? ++a : ++b;
    }
  }
}

double absolute_difference(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  const double difference = std::abs(b - a);
  return std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
}

double relative_difference(double a, double b) {
  const double difference = absolute_difference(a, b);
  if (difference == 0 || std::isinf(difference)) return difference;
  return difference / std::max(std::abs(a), std::abs(b));
}

void include(LargestDifference& largest, double value, int64_t step) {
  if (value > largest.value) largest = {value, step};
}

std::string printed(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

}  // namespace

LossComparison compare_histories(const History& first, const History& second, double tolerance) {
  LossComparison result;
  result.tolerance = tolerance;
  for_common_steps(first, second, [&](int64_t step, double a, double b) {
    const double absolute = absolute_difference(a, b);
    const double relative = relative_difference(a, b);
    if (result.num_steps++ == 0) result.first_step = step;
    result.last_step = step;
    include(result.max_absolute, absolute, step);
    include(result.max_relative, relative, step);
    result.mean_absolute += absolute;
    result.mean_relative += relative;
    if (relative > tolerance && !result.first_past_tolerance) result.first_past_tolerance = step;
  });
  if (result.num_steps > 0) {
    result.mean_absolute /= static_cast<double>(result.num_steps);
    result.mean_relative /= static_cast<double>(result.num_steps);
  }
  result.num_only_first = static_cast<int64_t>(first.size()) - result.num_steps;
  result.num_only_second = static_cast<int64_t>(second.size()) - result.num_steps;
  return result;
}

History difference_of(const History& first, const History& second) {
  History difference;
  for_common_steps(first, second, [&](int64_t step, double a, double b) {
    difference.push_back({step, b - a});
  });
  return difference;
}

std::string relative_summary(const LossComparison& comparison) {
  return concat("relative difference ", printed("%.3g %%", comparison.mean_relative * 100),
                " on average, ", printed("%.3g %%", comparison.max_relative.value * 100),
                " at most");
}

std::string describe(const LossComparison& comparison, const std::string& metric) {
  std::string text = concat(metric, ": ", comparison.num_steps, " steps in common, ",
                            comparison.first_step, " to ", comparison.last_step);
  if (comparison.num_only_first > 0)
    text += concat("; ", comparison.num_only_first, " only in the first run");
  if (comparison.num_only_second > 0)
    text += concat("; ", comparison.num_only_second, " only in the second run");
  text += "\n";
  const auto add = [&](const char* name, const LargestDifference& largest, double mean,
                       const char* format, double factor) {
    text += concat(name, printed(format, largest.value * factor), " at most");
    if (largest.value > 0) text += concat(", at step ", largest.step);
    text += concat("; ", printed(format, mean * factor), " on average\n");
  };
  add("difference:          ", comparison.max_absolute, comparison.mean_absolute, "%.6g", 1);
  add("relative difference: ", comparison.max_relative, comparison.mean_relative, "%.4g %%", 100);
  const std::string bound = printed("%.4g %%", comparison.tolerance * 100);
  if (!comparison.first_past_tolerance)
    return text + concat("all steps are within the tolerance (", bound, ")\n");
  return text + concat("past the tolerance (", bound, ") first at step ",
                       *comparison.first_past_tolerance, "\n");
}

std::string to_json_text(const LossComparison& comparison, const std::string& metric,
                         const ReceiptComparison& receipts) {
  const auto largest = [](const LargestDifference& difference) -> Json {
    if (difference.value == 0) return {{"value", 0.0}, {"step", nullptr}};
    return {{"value", number_to_json(difference.value)}, {"step", difference.step}};
  };
  Json json = {{"metric", metric},
               {"steps", comparison.num_steps},
               {"first_step", comparison.first_step},
               {"last_step", comparison.last_step},
               {"only_in_first", comparison.num_only_first},
               {"only_in_second", comparison.num_only_second},
               {"max_difference", largest(comparison.max_absolute)},
               {"mean_difference", number_to_json(comparison.mean_absolute)},
               {"max_relative_difference", largest(comparison.max_relative)},
               {"mean_relative_difference", number_to_json(comparison.mean_relative)},
               {"tolerance", comparison.tolerance},
               {"first_step_past_tolerance", nullptr},
               {"within_tolerance", !comparison.first_past_tolerance},
               {"bits", to_json(receipts)}};
  if (comparison.first_past_tolerance)
    json["first_step_past_tolerance"] = *comparison.first_past_tolerance;
  return json.dump();
}

}  // namespace moetron
