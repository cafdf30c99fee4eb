// Flags as options and JSON spell them.
#pragma once

namespace moetron {

inline const char* flag_text(bool value) {
  return value ? "true" : "false";
}

}  // namespace moetron
