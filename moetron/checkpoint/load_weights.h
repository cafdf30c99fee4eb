// Reading the weights of any Hugging Face model directory of a supported family, a checkpoint's own
// included, or of Megatron's files of ranks (stored_weights.h), into slices of whatever layout.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "moetron/autograd/parameter.h"
#include "moetron/checkpoint/stored_model.h"

namespace moetron {

class Communicator;

struct LoadReport {
  int64_t num_tensors = 0;          // read by this rank; stacked experts count one by one
  std::vector<std::string> unused;  // on disk, wanted by no slice of any rank, and not known to be
                                    // ignorable
};

// Fills every slice from folder/model.safetensors or the shards of folder's index, or from folder's
// mp_rank_*, converting F32,
// BF16 and F16 to the slice's dtype. Experts may be one tensor each
// ("mlp.experts.3.gate_proj.weight") or stacked as transformers 5 holds them
// ("mlp.experts.gate_up_proj" [E, 2I, H], "mlp.experts.down_proj" [E, H, I]). A tensor that is
// missing, of another shape or of another kind of type is an InputError naming file, tensor and
// what was found and wanted. Tensors that no slice wants give one warning, except those that may be
// ignored by folder's config.json: layers of multi-token prediction, an lm_head.weight that is tied
// to the embedding, and rotary_emb.inv_freq.
// A head of other values than the embedding, in a model that is tied, is an InputError.
// `stored`: the layers that are taken, and the model where no config.json tells it.
// Collective over `world` (null: a single rank): each rank reads what its own slices need, an error
// of one is thrown by all, and rank 0 warns, once, of tensors that no rank wants.
LoadReport load_weights(const std::filesystem::path& folder, const std::vector<NamedSlice>& slices,
                        Communicator* world = nullptr, const StoredModel& stored = {});

// The same for some of a model's slices: by this rank alone, without the warning.
LoadReport load_some_weights(const std::filesystem::path& folder,
                             const std::vector<NamedSlice>& slices);

}  // namespace moetron
