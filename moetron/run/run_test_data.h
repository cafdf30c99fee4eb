// For tests of this folder, and of those that read what it resolves: runs as command lines.
#pragma once

#include "moetron/config/test_args.h"
#include "moetron/run/resolve.h"

namespace moetron {

// Why a command line is refused before anything is read; empty if it is not.
inline std::string invalid(const std::string& command_line, int64_t world_size = 1) {
  const ParsedCommandLine parsed = parse(command_line);
  try {
    if (parsed.command == Command::kSimulate) {
      resolve_simulation(parsed.options);
    } else {
      validate(parsed.options, parsed.command, world_size);
    }
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

}  // namespace moetron
