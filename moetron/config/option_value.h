// Values of options: from text to a checked field, and back to JSON.
#pragma once

#include <string>
#include <vector>

#include "moetron/base/json.h"
#include "moetron/config/option_table.h"

namespace moetron {

// One value as it was written. The command line has text only; TOML and JSON know their types.
enum class ScalarType { kUntyped, kBoolean, kInteger, kNumber, kText };
struct Scalar {
  ScalarType type;
  std::string text;
};

// An option that somebody set, with the name to show in messages: "--lr" or "run.toml: lr".
struct Setting {
  const OptionSpec* spec;
  std::vector<Scalar> values;
  std::string shown;
  bool is_implied = false;  // the value came with the name: --bf16, --no-swiglu
  double factor = 1;        // that the name brings along: minutes are 60 seconds
};

struct StandingOfSetting {
  Standing standing = Standing::kWorks;
  std::string why = {};  // the missing capability, or the reason of no effect
};

// Checks type and range, then stores the value, unless it is not there yet. Throws ConfigError
// naming option and value.
StandingOfSetting try_setting(const Setting& setting, Options& options);
std::string not_yet_sentence(const Setting& setting, const std::string& missing);

// The same, where what is not there yet is a ConfigError, too. Returns why the value has no effect;
// empty when it has one.
std::string apply_setting(const Setting& setting, Options& options);

// The field's value; null for an empty std::optional and for options without a field.
Json option_value(const OptionSpec& spec, const Options& options);
void reset_option(const OptionSpec& spec, Options& options);  // back to the default

// Booleans, numbers, texts and lists of them as scalars. Throws ConfigError for anything else.
std::vector<Scalar> json_scalars(const Json& value, const std::string& shown);

// {"optimizer": {"lr": 1e-4, ...}, ...}: every option that has a field, under its group.
Json options_to_json(const Options& options);

}  // namespace moetron
