// Curves as other programs keep them: the golden values of Megatron's tests, and tables of text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moetron {

// What a wanted curve may be called, the best name first.
using CurveNames = std::vector<std::string_view>;
using TakePoint = std::function<void(int64_t step, double value)>;

// {"lm loss": {"start_step": 1, "step_interval": 5, "values": {"1": 10.9, "5": "nan"}}, ...}; in
// older ones the values are a list, a step_interval apart.
bool is_golden_values(std::string_view text);
// Throws InputError naming the file where it is damaged. Takes nothing if no curve has the name.
void read_golden_values(std::string_view text, const std::filesystem::path& path,
                        const CurveNames& names, const TakePoint& take);

// Takes the first line, its end too, from the front of the text.
std::string_view take_line(std::string_view& text);
// The fields of a table's line, between commas, tabs or blanks; quotes hold a field together.
std::vector<std::string> table_fields(std::string_view line);
// All of a field; blanks around the number are allowed.
std::optional<double> number_in_field(std::string_view field);

// Lines of fields between commas, tabs or blanks: under a header with a column of steps (step,
// iteration, iter, global_step), as TensorBoard and others export it; or two numbers a line, the
// step and the loss, as torchtitan's tests keep it.
bool is_curve_table(std::string_view text);
// Takes nothing if no column has one of the names; "Value" will do where it is the only one beside
// step and time. Throws InputError naming file and line where a field is no number.
void read_curve_table(std::string_view text, const std::filesystem::path& path,
                      const CurveNames& names, const TakePoint& take);

}  // namespace moetron
