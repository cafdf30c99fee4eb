#include "moetron/base/error.h"

#include <algorithm>

namespace moetron {

Error::Error(int exit_code, const std::string& message)
    : std::runtime_error(message), exit_code_(exit_code) {}

ConfigError::ConfigError(const std::string& message) : Error(kExitConfig, message) {}
InputError::InputError(const std::string& message) : Error(kExitCorruptInput, message) {}
InternalError::InternalError(const std::string& message) : Error(kExitInternal, message) {}

std::string first_line(const std::exception& error) {
  std::string text = error.what();
  text.resize(std::min(text.size(), text.find('\n')));
  const size_t place_end = text.find("] ");
  return text.starts_with('[') && place_end != std::string::npos ? text.substr(place_end + 2)
                                                                 : text;
}

void throw_internal_error(const char* condition, const char* file, int line,
                          const std::string& message) {
  throw InternalError(concat(message, " [", condition, " at ", file, ":", line, "]"));
}

}  // namespace moetron
