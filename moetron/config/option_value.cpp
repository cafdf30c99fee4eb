#include "moetron/config/option_value.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/flag_text.h"

namespace moetron {
namespace {

// A setting's values in the type of its kind. One of the members is filled.
struct Checked {
  bool flag = false;
  int64_t integer = 0;
  double number = 0;
  int choice = -1;  // its place among the choices
  Enumerator enumerator;
  std::vector<int64_t> integers;
  std::vector<double> numbers;
  std::vector<std::string> texts;
};

[[noreturn]] void wrong_type(const Setting& setting, const char* expected, const Scalar& got) {
  throw ConfigError(concat(setting.shown, " expects ", expected, ", not \"", got.text, "\""));
}

bool is_one_of(ScalarType type, std::initializer_list<ScalarType> allowed) {
  return type == ScalarType::kUntyped ||
         std::find(allowed.begin(), allowed.end(), type) != allowed.end();
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(',', begin)) != std::string::npos; begin = end + 1)
    parts.push_back(trimmed(text.substr(begin, end - begin)));
  parts.push_back(trimmed(text.substr(begin)));
  return parts;
}

std::string number_text(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, result.ptr);
}

template <class T>
void check_range(const Setting& setting, T value, const std::string& text) {
  const OptionSpec& spec = *setting.spec;
  const double as_double = static_cast<double>(value);
  const bool low = spec.minimum_excluded ? as_double <= spec.minimum : as_double < spec.minimum;
  MT_CHECK_CONFIG(!low, setting.shown, " must be ", spec.minimum_excluded ? "above " : "at least ",
                  number_text(spec.minimum), ", not ", text);
  const bool high = spec.maximum_excluded ? as_double >= spec.maximum : as_double > spec.maximum;
  MT_CHECK_CONFIG(!high, setting.shown, " must be ", spec.maximum_excluded ? "below " : "at most ",
                  number_text(spec.maximum), ", not ", text);
}

bool parse_flag(const Setting& setting, const Scalar& value) {
  const std::string text = lower(value.text);
  if (!is_one_of(value.type, {ScalarType::kBoolean}) || (text != "true" && text != "false"))
    wrong_type(setting, "true or false", value);
  return text == "true";
}

int64_t parse_integer(const Setting& setting, const Scalar& value) {
  int64_t number = 0;
  const char* end = value.text.data() + value.text.size();
  const auto [stop, error] = std::from_chars(value.text.data(), end, number);
  if (stop == end && error == std::errc::result_out_of_range)
    throw ConfigError(concat(setting.shown, " must fit into 64 bits, not ", value.text));
  if (!is_one_of(value.type, {ScalarType::kInteger}) || stop != end || error != std::errc())
    wrong_type(setting, "a whole number", value);
  check_range(setting, number, value.text);
  return number;
}

double parse_number(const Setting& setting, const Scalar& value) {
  double number = 0;
  const char* end = value.text.data() + value.text.size();
  const auto [stop, error] = std::from_chars(value.text.data(), end, number);
  if (!is_one_of(value.type, {ScalarType::kInteger, ScalarType::kNumber}) || stop != end ||
      error == std::errc::invalid_argument)
    wrong_type(setting, "a number", value);
  number *= setting.factor;
  MT_CHECK_CONFIG(error == std::errc() && std::isfinite(number), setting.shown,
                  " must be a finite number, not ", value.text);
  check_range(setting, number, value.text);
  return number;
}

std::string parse_text(const Setting& setting, const Scalar& value) {
  if (value.text.empty() || !is_one_of(value.type, {ScalarType::kText}))
    wrong_type(setting, "a text", value);
  try {
    Json(value.text).dump();  // the text goes into the checkpoint's dump, which is UTF-8
  } catch (const Json::type_error&) {
    throw ConfigError(setting.shown + " must be valid UTF-8");
  }
  return value.text;
}

int parse_choice(const Setting& setting, const Scalar& value) {
  const auto& choices = setting.spec->choices;
  std::string names;
  for (size_t i = 0; i < choices.size(); ++i) {
    const bool is_it = choices[i].name == value.text && is_one_of(value.type, {ScalarType::kText});
    if (is_it) return int(i);
    names += (i == 0 ? "" : ", ") + choices[i].name;
  }
  wrong_type(setting, ("one of " + names).c_str(), value);
}

// {key:value,key:value}, with or without quotes: a shell may have taken them away.
// Returns each "key:value", which must be one of the choices.
std::vector<std::string> parse_pairs(const Setting& setting, const Scalar& value) {
  std::vector<std::string> pairs;
  std::string text = value.text;
  std::erase_if(text, [](char c) { return c == '"' || c == '\'' || c == ' '; });
  bool good = text.size() >= 2 && text.front() == '{' && text.back() == '}';
  for (const std::string& pair : split_at_commas(good ? text.substr(1, text.size() - 2) : "")) {
    const size_t colon = pair.find(':');
    good = good && colon != std::string::npos && colon > 0 && colon + 1 < pair.size() &&
           pair.find(':', colon + 1) == std::string::npos;
    if (good)
      pairs.push_back(setting.spec->choices[parse_choice(setting, {value.type, pair})].name);
  }
  if (!good) wrong_type(setting, "{module:implementation,...}", value);
  return pairs;
}

// The values of a list, of which a text may hold several, separated by commas.
std::vector<Scalar> elements_of(const Setting& setting) {
  std::vector<Scalar> elements;
  for (const Scalar& value : setting.values) {
    const bool is_list = is_one_of(value.type, {ScalarType::kText});
    const ScalarType type = is_list ? ScalarType::kUntyped : value.type;
    for (const std::string& part : split_at_commas(value.text)) elements.push_back({type, part});
  }
  return elements;
}

Checked check_values(const Setting& setting) {
  Checked checked;
  const ValueKind kind = setting.spec->kind;
  MT_CHECK_CONFIG(!setting.values.empty(), setting.shown, " needs a value");
  if (kind == ValueKind::kIntegers || kind == ValueKind::kNumbers) {
    for (const Scalar& value : elements_of(setting)) {
      if (kind == ValueKind::kIntegers) checked.integers.push_back(parse_integer(setting, value));
      if (kind == ValueKind::kNumbers) checked.numbers.push_back(parse_number(setting, value));
    }
    return checked;
  }
  if (kind == ValueKind::kTexts) {
    for (const Scalar& value : setting.values)
      checked.texts.push_back(parse_text(setting, {ScalarType::kText, value.text}));
    return checked;
  }
  MT_CHECK_CONFIG(setting.values.size() == 1, setting.shown, " takes one value, not ",
                  setting.values.size());
  const Scalar& value = setting.values[0];
  if (kind == ValueKind::kFlag) checked.flag = parse_flag(setting, value);
  if (kind == ValueKind::kInteger) checked.integer = parse_integer(setting, value);
  if (kind == ValueKind::kNumber) checked.number = parse_number(setting, value);
  if (kind == ValueKind::kText) checked.texts = {parse_text(setting, value)};
  if (kind == ValueKind::kChoice) {
    checked.choice = parse_choice(setting, value);
    checked.enumerator = setting.spec->choices[checked.choice].meaning;
  }
  if (kind == ValueKind::kPairs) checked.texts = parse_pairs(setting, value);
  return checked;
}

StandingOfSetting standing_of(const Setting& setting, const Checked& checked) {
  const OptionSpec& spec = *setting.spec;
  const bool is_flag = spec.kind == ValueKind::kFlag;
  if (!spec.only_value.empty()) {
    const bool works =
        is_flag ? checked.flag == (spec.only_value == "true")
                : (spec.kind == ValueKind::kInteger ? static_cast<double>(checked.integer)
                                                    : checked.number) == std::stod(spec.only_value);
    return works ? StandingOfSetting() : StandingOfSetting{Standing::kNotYet, spec.why};
  }
  if (checked.choice >= 0) {
    const Choice& choice = spec.choices[checked.choice];
    return {choice.standing, choice.why};
  }
  // A flag that asks for nothing is harmless.
  if (is_flag && !checked.flag) return {};
  return {spec.standing, spec.why};
}

struct Store {
  Checked& value;
  void operator()(std::monostate) const {}
  void operator()(bool* field) const { *field = value.flag; }
  void operator()(std::optional<bool>* field) const { *field = value.flag; }
  void operator()(int64_t* field) const { *field = value.integer; }
  void operator()(std::optional<int64_t>* field) const { *field = value.integer; }
  void operator()(double* field) const { *field = value.number; }
  void operator()(std::optional<double>* field) const { *field = value.number; }
  void operator()(std::string* field) const { *field = value.texts[0]; }
  void operator()(std::vector<int64_t>* field) const { *field = value.integers; }
  void operator()(std::vector<double>* field) const { *field = value.numbers; }
  void operator()(std::vector<std::string>* field) const { *field = value.texts; }
  void operator()(const EnumField& field) const { field.set(field.value, value.enumerator); }
};

struct Load {
  const OptionSpec& spec;
  Json operator()(std::monostate) const { return nullptr; }
  Json operator()(const EnumField& field) const {
    const Enumerator held = field.get(field.value);
    if (held == Enumerator()) return nullptr;
    for (const Choice& choice : spec.choices)
      if (choice.meaning == held) return choice.name;
    throw InternalError(concat("option ", spec.name, " holds what none of its choices means"));
  }
  template <class T>
  Json operator()(std::optional<T>* field) const {
    return *field ? Json(**field) : Json(nullptr);
  }
  template <class T>
  Json operator()(T* field) const {
    return *field;
  }
};

struct Reset {
  const OptionSpec& spec;
  Options& defaults;
  void operator()(std::monostate) const {}
  void operator()(const EnumField& field) const {
    const auto source = std::get<EnumField>(spec.field(defaults));
    field.set(field.value, source.get(source.value));
  }
  template <class T>
  void operator()(T* field) const {
    *field = *std::get<T*>(spec.field(defaults));
  }
};

Scalar json_scalar(const Json& value, const std::string& shown) {
  if (value.is_boolean()) return {ScalarType::kBoolean, flag_text(value.get<bool>())};
  if (value.is_number_integer()) return {ScalarType::kInteger, value.dump()};
  if (value.is_number()) return {ScalarType::kNumber, number_text(value.get<double>())};
  if (value.is_string()) return {ScalarType::kText, value.get<std::string>()};
  throw ConfigError(concat(shown, " must be a value or a list of values, not ", value.type_name()));
}

}  // namespace

StandingOfSetting try_setting(const Setting& setting, Options& options) {
  Checked checked = check_values(setting);
  StandingOfSetting standing = standing_of(setting, checked);
  if (standing.standing != Standing::kNotYet && setting.spec->field)
    std::visit(Store{checked}, setting.spec->field(options));
  return standing;
}

std::string not_yet_sentence(const Setting& setting, const std::string& missing) {
  const OptionSpec& spec = *setting.spec;
  const bool shows_value =
      !setting.is_implied && (!spec.only_value.empty() || !spec.choices.empty());
  return concat(setting.shown, shows_value ? " " + setting.values[0].text : "",
                " is not there yet: ", missing,
                spec.only_value.empty() ? "" : " (" + spec.only_value + " works)");
}

std::string apply_setting(const Setting& setting, Options& options) {
  const StandingOfSetting standing = try_setting(setting, options);
  MT_CHECK_CONFIG(standing.standing != Standing::kNotYet, not_yet_sentence(setting, standing.why));
  return standing.why;
}

Json option_value(const OptionSpec& spec, const Options& options) {
  if (!spec.field) return nullptr;
  // The accessors are written once, for reading and writing: hence a copy instead of a cast.
  Options copy = options;
  return std::visit(Load{spec}, spec.field(copy));
}

void reset_option(const OptionSpec& spec, Options& options) {
  Options defaults;
  if (spec.field) std::visit(Reset{spec, defaults}, spec.field(options));
}

std::vector<Scalar> json_scalars(const Json& value, const std::string& shown) {
  if (!value.is_array()) return {json_scalar(value, shown)};
  std::vector<Scalar> scalars;
  for (const Json& element : value) scalars.push_back(json_scalar(element, shown));
  return scalars;
}

Json options_to_json(const Options& options) {
  Json json = Json::object();
  for (const OptionSpec& spec : option_table().options())
    if (spec.field) json[spec.group][spec.name] = option_value(spec, options);
  return json;
}

}  // namespace moetron
