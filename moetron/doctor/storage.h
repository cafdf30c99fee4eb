// Whether what a run saves is there when the machine has lost its power.
#pragma once

#include <filesystem>
#include <functional>

#include "moetron/doctor/check.h"

namespace moetron {

// Whether a lock taken in the folder keeps a second one out; it may leave files there.
using TryLocks = std::function<bool(const std::filesystem::path& folder)>;

// Writes 16 MiB below the folder, or below the nearest one above it that is there, as checkpoints
// are written, reads them, and removes all of it.
Check check_storage(const std::filesystem::path& folder, const TryLocks& try_locks);

// "ext4", "nfs", ...; a number for one that is not known. As statfs(2) has it.
std::string file_system_name(long type);

}  // namespace moetron
