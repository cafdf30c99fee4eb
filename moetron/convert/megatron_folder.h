// Where Megatron's checkpoints lie in a folder, and which of its two formats they have.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace moetron {

inline constexpr const char* kMegatronFile = "model_optim_rng.pt";
inline constexpr const char* kLatestFile = "latest_checkpointed_iteration.txt";
// Of the sharded format, torch-dist: what is the same on all ranks, with the arguments among it.
inline constexpr const char* kCommonFile = "common.pt";
inline constexpr const char* kDistMetadataFile = ".metadata";

// Whether a folder holds checkpoints of Megatron in files of ranks, or is one of them.
bool is_megatron_folder(const std::filesystem::path& folder);
// The same of the sharded format.
bool is_torch_dist_folder(const std::filesystem::path& folder);

// The names "mp_rank_..." in the folder of an iteration, sorted.
std::vector<std::string> rank_folders(const std::filesystem::path& folder);
// The folder of the iteration `step`, or of the one that Megatron noted as the last; or `folder`
// itself, where it is one. InputError where nothing tells.
std::filesystem::path find_iteration(const std::filesystem::path& folder,
                                     std::optional<int64_t> step = {});

// Whether it holds the folder of that iteration.
bool holds_iteration(const std::filesystem::path& folder, int64_t step);

// The file that holds Megatron's arguments, of find_iteration(): that of the first rank, or
// common.pt. InputError where neither is there.
std::filesystem::path arguments_file(const std::filesystem::path& folder,
                                     std::optional<int64_t> step = {});

}  // namespace moetron
