// What Python's str can do, on valid UTF-8: places and lengths count characters where Python's do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moetron::jinja {

bool is_python_space(char32_t character);

int64_t count_characters(std::string_view text);
// The byte at which character `index` begins; the end of the text for what is behind it.
size_t byte_of_character(std::string_view text, int64_t index);
std::vector<std::string_view> split_characters(std::string_view text);
void append_utf8(std::string& out, char32_t character);

// std::string_view::find, in linear time whatever is looked for.
size_t find_text(std::string_view text, std::string_view part);

enum class Side { kBoth, kLeft, kRight };
// Without `characters` white space is stripped, else any of these.
std::string_view strip(std::string_view text, Side side,
                       std::optional<std::string_view> characters = std::nullopt);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title_case(std::string_view text);  // str.title()
std::string swap_case(std::string_view text);

// By the name of Python's method: isalpha, isdigit, isupper, ...; nothing for other names.
std::optional<bool> test_text(std::string_view method, std::string_view text);

// At most `most` cuts where that is not negative, from the right with `from_right`. The separator
// is not empty.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t most,
                                    bool from_right);
std::vector<std::string_view> split_at_spaces(std::string_view text, int64_t most, bool from_right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

// Replaces at most `most` where that is not negative, from the left.
std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t most);
int64_t count_of(std::string_view text, std::string_view part);

std::string escape_html(std::string_view text);
// Python's repr().
std::string quote_text(std::string_view text);

}  // namespace moetron::jinja
