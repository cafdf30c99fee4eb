// The numbers of a training run: what each is called in the logs that hold it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "moetron/metrics/curve_tables.h"
#include "moetron/metrics/step_record.h"

namespace moetron {

// An empty name: that kind of log does not hold it.
struct Metric {
  const char* name;  // the key in metrics.jsonl; of an object in it "KEY.KEY"
  const char* axis;  // with its unit
  std::optional<double> (*of)(const StepRecord& record);
  std::string_view tag = {};           // of our event files
  std::string_view megatron_tag = {};  // of Megatron's
  std::string_view field = {};         // of a line of Megatron's log
  double field_factor = 1;
};

// Throws ConfigError naming the option `metric` and the known names.
const Metric& metric_named(const std::string& name);
// As columns of tables and golden values have it, the best name first.
CurveNames names_of(const Metric& metric);

}  // namespace moetron
