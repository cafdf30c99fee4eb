#pragma once

#include <string>

namespace moetron {

// This machine's own name; empty where the system does not tell it.
std::string host_name();

}  // namespace moetron
