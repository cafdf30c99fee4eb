// The record of a micro-batch, made once a step: what its tokens are, and how they lie on this
// rank. Everything that works on the micro-batch reads it.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/parallel/token_layout.h"

namespace moetron {

class KeyValueCache;  // nn/attention.h

// Which tokens attend to each other: those between two bounds. Without bounds, those of a sequence.
struct DocumentBounds {
  std::vector<int64_t> on_host;  // {0, ..., tokens}, ascending; every sequence begins at one
  at::Tensor on_device;          // the same, int32

  bool defined() const { return !on_host.empty(); }
};

// Hidden states are [tokens, hidden], the sequences one after the other; each tensor-parallel rank
// holds the rows that `layout` says.
struct MicroBatch {
  at::Tensor tokens;        // [batch, seq] int64
  at::Tensor labels;        // [batch, seq] int64, -100 where there is no loss; undefined: no loss
  at::Tensor loss_weights;  // [batch, seq] fp32, of each label's loss; undefined: 1
  at::Tensor positions;     // [batch, seq] int64
  DocumentBounds documents;
  TokenLayout layout;
  // Padding is computed, and counts nowhere: in no load, capacity, loss or divisor.
  at::Tensor padding;           // [layout.num_local()] bool, of this rank's rows; undefined: none
  int64_t num_real_tokens = 0;  // of the whole micro-batch, without padding

  // The gradient of the step's loss with respect to the sum of the labels' losses, and to each
  // layer's aux loss: known when the step begins, so that the head may compute its gradients in
  // its forward, and need not keep the logits.
  double d_loss = 1;
  double d_aux = 0;
  // For a loss that learns later how much each label weighs: the head gives the log-probability of
  // each label instead of the sum, and the gradient comes with the loss (pipeline/executor.h).
  bool wants_log_probabilities = false;
  bool training = false;           // count routed tokens (the router's bias follows them)
  KeyValueCache* cache = nullptr;  // generation: the tokens follow those of the cache
};

// Whole sequences without padding. tokens [batch, seq] int64; labels as above. `tensor_group` null:
// one rank holds all.
MicroBatch make_micro_batch(const at::Tensor& tokens, const at::Tensor& labels = {},
                            Communicator* tensor_group = nullptr);

}  // namespace moetron
