#include "moetron/run/changed_options.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/config/option_table.h"
#include "moetron/config/option_value.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

// Null where the record knows no such option.
const Json* find_value(const Json& record, const std::string& group, const std::string& name) {
  if (!record.contains(group) || !record.at(group).contains(name)) return nullptr;
  return &record.at(group).at(name);
}

std::string spelled_json(const Json& value) {
  if (value.is_null()) return "-";
  return value.is_string() && !value.get<std::string>().empty() ? value.get<std::string>()
                                                                : value.dump();
}

// What a record says of the optimizer and of how long the run is; nothing where it has no meaning
// now.
std::optional<Options> recorded_options(const Json& record) {
  Options options;
  try {
    for (const OptionSpec& spec : option_table().options()) {
      const Json* value = find_value(record, spec.group, spec.name);
      const bool is_asked = spec.group == "optimizer" || spec.name == "train-iters" ||
                            spec.name == "train-samples" || spec.name == "global-batch-size";
      const bool is_default = value != nullptr && *value == option_value(spec, Options{});
      if (!is_asked || !spec.field || value == nullptr || is_default) continue;
      apply_setting({&spec, json_scalars(*value, spec.name), spec.name}, options);
    }
  } catch (const ConfigError&) {
    return std::nullopt;
  }
  return options;
}

}  // namespace

std::vector<ChangedOption> changed_options(const Json& before, const Json& now) {
  std::vector<ChangedOption> changes;
  for (const OptionSpec& spec : option_table().options()) {
    const Json* old_value = find_value(before, spec.group, spec.name);
    const Json* value = find_value(now, spec.group, spec.name);
    if (old_value == nullptr || value == nullptr || *old_value == *value) continue;
    const bool acts_at_a_start = spec.name == "accept-changes" || spec.name == "restart" ||
                                 spec.name.ends_with("-opt-param-scheduler");
    if (acts_at_a_start) continue;
    changes.push_back(
        {spec.name, spelled_json(*old_value), spelled_json(*value), spec.decides_training});
  }
  return changes;
}

std::vector<std::string> not_accepted(const std::vector<ChangedOption>& changes,
                                      const std::vector<std::string>& accepted) {
  const auto is_accepted = [&](const std::string& name) {
    return std::any_of(accepted.begin(), accepted.end(),
                       [&](const std::string& word) { return word == "all" || word == name; });
  };
  std::vector<std::string> names;
  for (const ChangedOption& change : changes) {
    if (change.decides_training && !is_accepted(change.name)) names.push_back(change.name);
  }
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::string change_table(const std::vector<ChangedOption>& changes) {
  std::vector<std::array<std::string, 3>> rows{{"option", "before", "now"}};
  for (const ChangedOption& change : changes)
    rows.push_back({change.name, change.before, change.now});
  std::array<size_t, 2> widths{};
  for (const auto& row : rows)
    for (size_t i = 0; i < 2; ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows) {
    text += text.empty() ? "  " : "\n  ";
    for (size_t i = 0; i < 2; ++i) text += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    text += row[2];
  }
  return text;
}

int64_t recorded_number(const Json& record, const std::string& name) {
  for (const auto& [group, members] : record.items()) {
    if (members.contains(name) && members.at(name).is_number_integer())
      return members.at(name).get<int64_t>();
  }
  return 0;
}

Options with_recorded_schedule(Options options, const Json& record) {
  const auto recorded = recorded_options(record);
  MT_CHECK_CONFIG(recorded,
                  "use-checkpoint-opt-param-scheduler: the checkpoint notes learning rates that "
                  "have no meaning now");
  const OptimizerOptions& from = recorded->optimizer;
  OptimizerOptions& to = options.optimizer;
  to.lr = from.lr;
  to.min_lr = from.min_lr;
  to.lr_decay_style = from.lr_decay_style;
  to.lr_decay_iters = from.lr_decay_iters;
  to.lr_decay_samples = from.lr_decay_samples;
  to.lr_warmup_iters = from.lr_warmup_iters;
  to.lr_warmup_samples = from.lr_warmup_samples;
  to.lr_warmup_fraction = from.lr_warmup_fraction;
  to.lr_warmup_init = from.lr_warmup_init;
  to.weight_decay = from.weight_decay;
  if (!to.lr_decay_iters && !to.lr_decay_samples) {
    if (recorded->training.train_samples)
      to.lr_decay_samples = recorded->training.train_samples;
    else
      to.lr_decay_iters = recorded->training.train_iters;
  }
  return options;
}

std::optional<LrSchedule> recorded_learning_rate(const Json& record) {
  const auto options = recorded_options(record);
  if (!options) return std::nullopt;
  return resolve_learning_rate(*options);
}

}  // namespace moetron
