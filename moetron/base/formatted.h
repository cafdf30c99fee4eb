// Numbers in lines of text.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>

namespace moetron {

// As printf does; 1023 characters at most.
[[gnu::format(printf, 1, 2)]] inline std::string formatted(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return text;
}

}  // namespace moetron
