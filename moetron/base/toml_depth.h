// Keys of many parts ([a.b.c...]) nest tables in tables, which the parser takes apart by recursion.
#pragma once

#include <string>
#include <string_view>

namespace moetron {

// Throws ConfigError, with `name` and the line, for a key of more parts than any file here needs.
void check_toml_depth(std::string_view text, const std::string& name);

}  // namespace moetron
