// For tests of what is refused.
#pragma once

#include <string>

#include "moetron/base/error.h"

namespace moetron {

// The message of the Error that the call throws, or "" if it throws none.
template <class Error, class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

template <class Call>
std::string config_error(const Call& call) {
  return error_of<ConfigError>(call);
}

}  // namespace moetron
