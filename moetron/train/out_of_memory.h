// What to tell a user whose run does not fit into memory.
#pragma once

#include <exception>
#include <optional>
#include <string>

namespace moetron {

// One sentence where the GPU's memory or the host's is full: what was asked for, what the GPU has,
// and which options need less. Nothing of any other error.
std::optional<std::string> describe_out_of_memory(const std::exception& error);

}  // namespace moetron
