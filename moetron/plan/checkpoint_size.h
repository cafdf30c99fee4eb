// What a model's parameters and a run's checkpoints amount to, to the element and the byte.
#pragma once

#include <cstdint>

#include "moetron/run/run_spec.h"

namespace moetron {

// Elements of a model over all ranks, without padding; a tied table counts once.
struct ModelElements {
  int64_t trained = 0;  // where nothing is frozen
  int64_t buffers = 0;  // the routers' biases
  int64_t idle = 0;     // of the trained: in experts that a token does not go to

  int64_t all() const { return trained + buffers; }
  int64_t active() const { return all() - idle; }
};
ModelElements model_elements(const ModelConfig& model);
// Those that a run trains, of the model and of its low-rank updates.
int64_t trained_elements(const RunSpec& spec);

// Bytes of the tensors in a checkpoint's files. Their headers, and the small files beside them,
// come to it.
struct CheckpointBytes {
  int64_t weights = 0;
  int64_t optimizer = 0;  // masters (none under dtype fp32) and moments; 0 where they are not saved
};
CheckpointBytes checkpoint_bytes(const RunSpec& spec);

}  // namespace moetron
