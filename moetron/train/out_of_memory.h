// What to tell a user whose run does not fit on the GPU.
#pragma once

#include <string>

#include <c10/util/Exception.h>

namespace moetron {

// One sentence: what was asked for, what the GPU has, and which options need less.
std::string describe_out_of_memory(const c10::OutOfMemoryError& error);

}  // namespace moetron
