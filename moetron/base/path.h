// What lies at a path that a user named. Whatever keeps it from being looked at (no permission, a
// loop of links, a name that is too long) is an InputError with the path and the system's reason.
#pragma once

#include <filesystem>
#include <string>

namespace moetron {

// True where anything lies there; a link counts as what it leads to.
bool path_exists(const std::filesystem::path& path);

bool is_folder(const std::filesystem::path& path);

// A sentence of what went wrong at which path, for the rest of the library's functions.
std::string describe(const std::filesystem::filesystem_error& error);

}  // namespace moetron
