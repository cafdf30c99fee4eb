// What is in the way in a save folder, moved aside: what an earlier run left when one begins anew,
// and damaged checkpoints.
#pragma once

#include <cstdint>
#include <filesystem>

namespace moetron {

// Moves the checkpoints of `save`, sound or not, and the run's metrics and loss picture to the
// folder SAVE/before_restart_N, the first number that is free, and returns it. `metrics` (empty:
// none) that lie elsewhere are renamed beside themselves, with ".before_restart_N". Deletes
// nothing. ConfigError where something cannot be moved; what was moved until then stays there.
std::filesystem::path set_aside(const std::filesystem::path& save,
                                const std::filesystem::path& metrics);

// Moves the checkpoint of `step`, whatever it is, to the folder SAVE/damaged_N, the first number
// that is free, and returns where it is then. ConfigError where it cannot be moved.
std::filesystem::path set_damaged_aside(const std::filesystem::path& save, int64_t step);

}  // namespace moetron
