// What to tell a user whose run does not fit into memory.
#pragma once

#include <exception>
#include <optional>
#include <string>

#include "moetron/run/run_spec.h"

namespace moetron {

// One sentence where the GPU's memory or the host's is full: what was asked for, what the GPU has,
// and which options need less. Nothing of any other error.
std::optional<std::string> describe_out_of_memory(const std::exception& error);

// Bytes that a CPU of this machine may have, or of the group that the process belongs to where that
// has fewer.
double host_memory_bytes();

// Throws ConfigError where a rank's hidden states beside their normed ones, which every layer has
// at once, are more than `bytes`: the system would end the process without a word. What fits by
// this rule may still be too large.
void check_host_memory(const RunSpec& spec, double bytes);

}  // namespace moetron
