// Numbers from text, in the C locale whatever the process has.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>

namespace moetron {

// The number that all of the text is; nothing for any other text, or a number out of range.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return number;
}

// Takes a number from the front of the text; nothing, and the text as it was, where none is there.
template <class Number>
std::optional<Number> take_number(std::string_view& text) {
  Number number{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(stop - text.data()));
  return number;
}

}  // namespace moetron
