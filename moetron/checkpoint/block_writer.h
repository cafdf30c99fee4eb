// Writing a checkpoint's tensor files by all ranks at once.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "moetron/checkpoint/save_plan.h"
#include "moetron/checkpoint/save_snapshot.h"
#include "moetron/formats/manifest.h"

namespace moetron {

// Makes the files at their full size; their folders exist. ConfigError with the system's reason.
void create_tensor_files(const std::filesystem::path& folder, std::span<const TensorFile> files);

// Fills the files that create_tensor_files() made, through to the disk, and returns their entries
// for the manifest on rank 0 (nothing on the others). Collective over `exchange` (null: a single
// rank), the ranks of the plan. Each block is gathered by its writer, hashed from that buffer, and
// written. A rank holds few blocks at a time, however large the files are. A failure of any rank is
// thrown by all: ConfigError, with the system's reason, where the disk refuses.
std::vector<ManifestFile> write_tensor_files(const std::filesystem::path& folder,
                                             const SavePlan& plan, const SaveSnapshot& snapshot,
                                             Communicator* exchange);

}  // namespace moetron
