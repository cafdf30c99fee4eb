// What an earlier run left in a save folder, moved out of the way of a run that begins anew.
#pragma once

#include <filesystem>

namespace moetron {

// Moves the checkpoints of `save`, sound or not, and the run's metrics and loss picture to the
// folder SAVE/before_restart_N, the first number that is free, and returns it. `metrics` (empty:
// none) that lie elsewhere are renamed beside themselves, with ".before_restart_N". Deletes
// nothing. ConfigError where something cannot be moved; what was moved until then stays there.
std::filesystem::path set_aside(const std::filesystem::path& save,
                                const std::filesystem::path& metrics);

}  // namespace moetron
