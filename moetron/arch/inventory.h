// Every tensor of a model by its Hugging Face name and global shape, as a checkpoint stores it,
// with the rule by which ranks divide it (arch/tensors.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moetron/arch/mesh_layout.h"
#include "moetron/arch/model_config.h"
#include "moetron/arch/tensors.h"

namespace moetron {

enum class StoredDtype {
  kModel,    // ModelConfig::dtype
  kFloat32,  // always fp32: the router's selection bias
};

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;
  ShardRule shard;  // of a routed expert among its TPE ranks, of anything else among the TP ranks
  StoredDtype dtype = StoredDtype::kModel;
  int64_t layer = -1;      // -1: embedding, final norm, head
  int64_t expert = -1;     // -1: no routed expert's
  bool is_mtp = false;     // belongs to a multi-token prediction layer
  bool is_buffer = false;  // never touched by the optimizer

  bool is_expert() const { return expert >= 0; }
  int64_t num_elements() const;
};

enum class MtpTensors { kLeaveOut, kInclude };

// In the order embedding, layers, norm, head. A tied head is left out. MTP layers (kInclude) carry
// the indices num_layers, num_layers + 1, ... and copies of embedding and head, as DeepSeek-V3's
// release does.
std::vector<TensorInfo> tensor_inventory(const ModelConfig& config,
                                         MtpTensors mtp = MtpTensors::kLeaveOut);

// Of that list what is in no layer, and the tensors of one decoder layer; of its routed experts,
// which are all alike, those of the first alone. For sums over models of many experts.
std::vector<TensorInfo> end_tensors(const ModelConfig& config);
std::vector<TensorInfo> layer_tensors(const ModelConfig& config, int64_t layer);

// What a division of this model's tensors depends on.
DivisionSettings division_settings(const ModelConfig& config, bool mla_replicate_l1);
// Elements of a tensor that each rank of its stage holds (of an expert those that hold the expert),
// with the padding of a vocabulary. The layout has passed check_division().
int64_t elements_on_rank(const TensorInfo& tensor, const ParallelSizes& sizes,
                         const DivisionSettings& settings);
// Ranks of its stage that hold the same elements of a tensor: they divide its optimizer states.
int64_t copies_on_ranks(const TensorInfo& tensor, const ParallelSizes& sizes,
                        const DivisionSettings& settings);

// Elements of all tensors, buffers included.
int64_t count_parameters(const std::vector<TensorInfo>& inventory);
// Bytes of all tensors in the stored dtype.
int64_t count_stored_bytes(const std::vector<TensorInfo>& inventory, const ModelConfig& config);

}  // namespace moetron
