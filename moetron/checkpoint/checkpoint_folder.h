// Names inside a save folder: finished checkpoints, and the hidden folders of unfinished work.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace moetron {

inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kGenerationConfigFile[] = "generation_config.json";
inline constexpr char kIndexFile[] = "model.safetensors.index.json";
inline constexpr char kOptimizerFile[] = "state/optimizer.safetensors";
inline constexpr char kTrainerFile[] = "state/trainer.json";

// SAVE/.step_0000100.tmp: a checkpoint that is being written or deleted.
std::filesystem::path temporary_folder(const std::filesystem::path& save, int64_t step);

// Steps of the folders that have a checkpoint's name, newest first; none where `save` is missing.
std::vector<int64_t> list_steps(const std::filesystem::path& save);

// Deletes the temporary folders that killed runs left behind.
void remove_leftovers(const std::filesystem::path& save);

}  // namespace moetron
