#include "moetron/base/error.h"

namespace moetron {

Error::Error(int exit_code, const std::string& message)
    : std::runtime_error(message), exit_code_(exit_code) {}

ConfigError::ConfigError(const std::string& message) : Error(kExitConfig, message) {}
InputError::InputError(const std::string& message) : Error(kExitCorruptInput, message) {}
InternalError::InternalError(const std::string& message) : Error(kExitInternal, message) {}

void throw_internal_error(const char* condition, const char* file, int line,
                          const std::string& message) {
  throw InternalError(concat(message, " [", condition, " at ", file, ":", line, "]"));
}

}  // namespace moetron
