#include "moetron/config/applied_settings.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "moetron/base/error.h"
#include "moetron/config/argument_reader.h"
#include "moetron/config/options_page.h"

namespace moetron {
namespace {

void apply(Command command, AppliedSetting& applied, Options& options) {
  const Setting& setting = applied.setting;
  const bool belongs = setting.spec->belongs_to(command);
  // A file may serve several commands: the options of others are checked, then left alone.
  Options others;
  const StandingOfSetting standing = try_setting(setting, belongs ? options : others);
  if (belongs || standing.standing == Standing::kNotYet) {
    applied.standing = standing.standing;
    applied.why = standing.why;
  }
  MT_CHECK_CONFIG(belongs || !is_option(setting.shown) || standing.standing == Standing::kNotYet,
                  setting.shown, " belongs to ", command_list(setting.spec->commands), ", not to ",
                  command_name(command));
}

}  // namespace

void keep_last(std::vector<Setting>& settings) {
  std::vector<Setting> kept;
  for (Setting& setting : settings) {
    std::erase_if(kept, [&](const Setting& old) { return old.spec == setting.spec; });
    kept.push_back(std::move(setting));
  }
  settings = std::move(kept);
}

std::vector<AppliedSetting> apply_settings(Command command, std::vector<Setting> settings,
                                           Options& options) {
  std::vector<AppliedSetting> all;
  for (Setting& setting : settings) {
    AppliedSetting& applied = all.emplace_back();
    applied.setting = std::move(setting);
    try {
      apply(command, applied, options);
    } catch (const ConfigError& error) {
      applied.mistake = error.what();
    }
  }
  for (AppliedSetting& applied : all) {
    const OptionSpec& spec = *applied.setting.spec;
    // What acts in a run that is planned depends on its layout, which is not known yet.
    if (!spec.idle || !spec.belongs_to(command) || command == Command::kPlan) continue;
    const std::string reason = spec.idle(options);
    if (reason.empty()) continue;
    reset_option(spec, options);
    if (applied.standing != Standing::kNotYet && applied.mistake.empty()) {
      applied.standing = Standing::kNoEffect;
      applied.why = reason;
    }
  }
  for (AppliedSetting& applied : all) {
    const OptionSpec& spec = *applied.setting.spec;
    if (spec.remark && spec.belongs_to(command)) applied.remark = spec.remark(options);
  }
  return all;
}

std::vector<std::string> names_of(const std::vector<AppliedSetting>& settings) {
  std::vector<std::string> names;
  names.reserve(settings.size());
  for (const AppliedSetting& one : settings) names.push_back(one.setting.spec->name);
  return names;
}

std::string missing_options(Command command, const std::vector<std::string>& given) {
  const auto is_given = [&](const std::string& name) {
    return std::find(given.begin(), given.end(), name) != given.end();
  };
  std::string missing;
  for (const OptionSpec& spec : option_table().options()) {
    if (!spec.is_required_by(command) || is_given(spec.name) || is_given(spec.alternative))
      continue;
    missing += concat(missing.empty() ? "--" : ", --", spec.name);
    const auto other = option_table().find(spec.alternative);
    if (other && other->spec->belongs_to(command)) missing += " or --" + spec.alternative;
  }
  return missing.empty() ? "" : concat(command_name(command), " needs ", missing);
}

std::string misplaced_by_calibration(const Options& options,
                                     const std::vector<std::string>& given) {
  constexpr std::array<std::string_view, 3> kItsOwn{"out", "name", "calibrate-seconds"};
  const bool calibrates = options.plan.calibrate;
  std::string misplaced;
  for (const OptionSpec& spec : option_table().options()) {
    if (!spec.belongs_to(Command::kPlan) || spec.name == "calibrate") continue;
    if (std::find(given.begin(), given.end(), spec.name) == given.end()) continue;
    const bool is_its_own = std::find(kItsOwn.begin(), kItsOwn.end(), spec.name) != kItsOwn.end();
    // Where and how it measures, and where the rest is taken from.
    const bool serves = is_its_own || (spec.group == "runtime" && spec.name != "world-size");
    if (calibrates ? serves : !is_its_own) continue;
    misplaced += concat(misplaced.empty() ? "--" : ", --", spec.name);
  }
  if (misplaced.empty()) return "";
  return calibrates
             ? concat("plan --calibrate measures a machine, not a run: leave out ", misplaced)
             : concat(misplaced, " belongs to plan --calibrate: add --calibrate, or leave it out");
}

}  // namespace moetron
