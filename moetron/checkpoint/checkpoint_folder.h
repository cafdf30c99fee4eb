// Names inside a save folder: finished checkpoints, and the hidden folders of unfinished work.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace moetron {

inline constexpr char kOptimizerFile[] = "state/optimizer.safetensors";
inline constexpr char kTrainerFile[] = "state/trainer.json";

// SAVE/.step_0000100.4711.tmp: a checkpoint that is being written or deleted. `token` is the
// writer's own, so that no two write into one folder.
std::filesystem::path temporary_folder(const std::filesystem::path& save, int64_t step,
                                       int64_t token);

// For temporary_folder(): a token that no other writer has, whichever run it belongs to.
int64_t choose_token();

// Steps of all that has a checkpoint's name, whatever it is, newest first; none where `save` is
// missing. InputError where it cannot be listed: a checkpoint may be there all the same.
std::vector<int64_t> list_steps(const std::filesystem::path& save);

// Deletes the temporary folders that killed runs left behind, for whoever holds the folder's lock;
// one that cannot be deleted is a warning.
void remove_leftovers(const std::filesystem::path& save);

}  // namespace moetron
