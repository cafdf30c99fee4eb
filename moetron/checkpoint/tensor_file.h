// The safetensors files of a checkpoint before they are written: laid out by the global tensors,
// so that every rank knows where everything goes, whatever the layout of the run.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <c10/core/ScalarType.h>

#include "moetron/checkpoint/global_tensors.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

// The format's type of a torch type; InternalError for those that checkpoints never hold.
SafetensorsDtype stored_dtype(at::ScalarType type);
// The other way round; nothing for those.
std::optional<at::ScalarType> loaded_type(SafetensorsDtype dtype);

// Which slices of a rank a file is made of.
enum class FileContent { kWeights, kStates };

// One file to be: its layout, and who holds what of it.
struct TensorFile {
  std::string name;  // relative to the checkpoint, "model.safetensors"
  FileContent content = FileContent::kWeights;
  SafetensorsLayout layout;
  std::vector<std::vector<HeldBox>> boxes;  // of layout.tensors[i]
};

// state/optimizer.safetensors: all states.
TensorFile plan_state_file(std::span<const GlobalTensor> states);

// adapter_model.safetensors: the factors of all low-rank updates.
TensorFile plan_adapter_file(std::span<const GlobalTensor> weights);

// model.safetensors, or as many shards as it takes for none to hold more than `shard_bytes` of
// tensors (a single tensor may), filled in the order of the tensors.
std::vector<TensorFile> plan_model_files(std::span<const GlobalTensor> weights,
                                         uint64_t shard_bytes);

}  // namespace moetron
