#include "moetron/metrics/curve_tables.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/base/parse_number.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// All of the text, blanks around it aside.
template <class Number>
std::optional<Number> whole_number(std::string_view text) {
  const size_t first = text.find_first_not_of(" \r");
  if (first == std::string_view::npos) return std::nullopt;
  return parse_number<Number>(text.substr(first, text.find_last_not_of(" \r") - first + 1));
}

std::string_view first_line_of(std::string_view text) {
  return text.substr(0, text.find('\n'));
}

std::string in_small_letters(std::string_view text) {
  std::string small(text);
  for (char& c : small) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return small;
}

bool is_step_column(const std::string& name) {
  const std::string small = in_small_letters(name);
  return small == "step" || small == "iteration" || small == "iter" || small == "global_step";
}

bool is_time_column(const std::string& name) {
  const std::string small = in_small_letters(name);
  return small == "wall time" || small == "time" || small == "timestamp";
}

struct Columns {
  size_t step = 0, value = 1;
};

// Of the header of a table; nothing where it names none, or its words stand between blanks.
std::optional<size_t> step_column(std::string_view line) {
  if (line.find_first_of(",\t") == std::string_view::npos) return std::nullopt;
  const std::vector<std::string> header = table_fields(line);
  const auto found = std::find_if(header.begin(), header.end(), is_step_column);
  if (found == header.end()) return std::nullopt;
  return static_cast<size_t>(found - header.begin());
}

std::optional<size_t> value_column(const std::vector<std::string>& header,
                                   const CurveNames& names) {
  for (const std::string_view name : names) {
    const auto found = std::find_if(header.begin(), header.end(), [&](const std::string& column) {
      return in_small_letters(column) == in_small_letters(name);
    });
    if (found != header.end()) return static_cast<size_t>(found - header.begin());
  }
  std::vector<size_t> others;
  for (size_t i = 0; i < header.size(); ++i) {
    if (!is_step_column(header[i]) && !is_time_column(header[i])) others.push_back(i);
  }
  const bool is_nameless = others.size() == 1 && in_small_letters(header[others[0]]) == "value";
  return is_nameless ? std::optional(others[0]) : std::nullopt;
}

bool is_step_and_number(const std::vector<std::string>& fields) {
  return fields.size() == 2 && whole_number<int64_t>(fields[0]) && whole_number<double>(fields[1]);
}

double json_number(const Json& value, const std::string& place) {
  if (value.is_number()) return value.get<double>();
  MT_CHECK_INPUT(value.is_string() && in_small_letters(value.get<std::string>()) == "nan", place,
                 " is not a number");
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::string_view take_line(std::string_view& text) {
  const std::string_view line = first_line_of(text);
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  return line;
}

std::vector<std::string> table_fields(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const char separator = line.find(',') != std::string_view::npos    ? ','
                         : line.find('\t') != std::string_view::npos ? '\t'
                                                                     : ' ';
  std::vector<std::string> fields(1);
  bool is_quoted = false;
  for (const char c : line) {
    if (c == '"') {
      is_quoted = !is_quoted;
    } else if (c == separator && !is_quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  if (separator == ' ') std::erase(fields, "");
  return fields;
}

std::optional<double> number_in_field(std::string_view field) {
  return whole_number<double>(field);
}

bool is_golden_values(std::string_view text) {
  return text.find("\"start_step\"") != std::string_view::npos &&
         text.find("\"values\"") != std::string_view::npos;
}

void read_golden_values(std::string_view text, const fs::path& path, const CurveNames& names,
                        const TakePoint& take) {
  const Json root = parse_json(text, path.string());
  MT_CHECK_INPUT(root.is_object(), path.string(), " holds no golden values");
  const auto name = std::find_if(names.begin(), names.end(),
                                 [&](std::string_view known) { return root.contains(known); });
  if (name == names.end()) return;
  const Json& curve = root.at(std::string(*name));
  const std::string place = concat(path.string(), ": ", *name);
  MT_CHECK_INPUT(curve.is_object() && curve.contains("values"), place, " has no values");
  const Json& values = curve["values"];
  if (values.is_object()) {
    for (const auto& [key, value] : values.items()) {
      const auto step = whole_number<int64_t>(key);
      MT_CHECK_INPUT(step, place, " has the step \"", key, "\", which is no number");
      take(*step, json_number(value, concat(place, " at step ", *step)));
    }
    return;
  }
  const Json start = curve.value("start_step", Json()),
             interval = curve.value("step_interval", Json());
  MT_CHECK_INPUT(values.is_array() && start.is_number_integer() && interval.is_number_integer(),
                 place, " has values without start_step and step_interval");
  auto step = start.get<int64_t>();
  for (const Json& value : values) {
    take(step, json_number(value, concat(place, " at step ", step)));
    step += interval.get<int64_t>();
  }
}

bool is_curve_table(std::string_view text) {
  const std::string_view first = first_line_of(text);
  return step_column(first) || is_step_and_number(table_fields(first));
}

void read_curve_table(std::string_view text, const fs::path& path, const CurveNames& names,
                      const TakePoint& take) {
  Columns columns;
  int64_t number = 1;
  const std::vector<std::string> header = table_fields(first_line_of(text));
  if (const auto step = step_column(first_line_of(text))) {
    const auto value = value_column(header, names);
    if (!value) return;
    columns = {*step, *value};
    take_line(text);
    ++number;
  } else if (std::find(names.begin(), names.end(), "loss") == names.end()) {
    return;  // two columns hold losses
  }
  for (; !text.empty(); ++number) {
    const std::vector<std::string> fields = table_fields(take_line(text));
    if (fields.empty() || (fields.size() == 1 && fields[0].empty())) continue;
    const std::string place = concat(path.string(), ":", number, ": ");
    MT_CHECK_INPUT(std::max(columns.step, columns.value) < fields.size(), place, fields.size(),
                   " fields, where the first line has ", header.size());
    if (fields[columns.value].empty()) continue;                   // not known at this step
    const auto step = whole_number<double>(fields[columns.step]);  // some write 5.0
    const auto value = whole_number<double>(fields[columns.value]);
    MT_CHECK_INPUT(step && *step == std::floor(*step) && std::abs(*step) < 1e15, place, "\"",
                   fields[columns.step], "\" is no step");
    MT_CHECK_INPUT(value, place, "\"", fields[columns.value], "\" is not a number");
    take(static_cast<int64_t>(*step), *value);
  }
}

}  // namespace moetron
