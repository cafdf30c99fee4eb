// Options from a TOML file: flat keys (lr = 1e-4), or under their group ([optimizer] lr = 1e-4).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moetron/config/option_value.h"

namespace moetron {

// Every key of the file as a setting, of `command` where several have an option of that name. What
// is wrong with single keys is added to `errors`; a file that is not TOML is a ConfigError with
// line and column.
std::vector<Setting> read_toml_settings(const std::filesystem::path& path, Command command,
                                        std::vector<std::string>& errors);

// The options that are not what they are by default, under their groups: those of `command`, which
// reads them back as they are.
std::string toml_of(const Options& options, Command command);

}  // namespace moetron
