// Which checkpoints of a run stay when a new one is in its place.
#pragma once

#include <cstdint>
#include <filesystem>

namespace moetron {

struct KeepRule {
  int64_t last = 0;              // the newest so many; 0: all, or one where `every` is given
  int64_t every = 0;             // steps that this divides; 0: none for that
  std::filesystem::path loaded;  // stays in any case; empty: none
};

// Removes those checkpoints of `save` before step `saved`, which has just been saved and stays,
// that the rule does not keep. Only those count of which every file has the size that the manifest
// says: others are moved to SAVE/damaged_N, with a warning. What is removed gets a hidden name
// first, so that a kill leaves no part of it under a checkpoint's name. What cannot be removed or
// moved is a warning. For rank 0 alone.
void remove_old_checkpoints(const std::filesystem::path& save, const KeepRule& rule, int64_t saved);

}  // namespace moetron
