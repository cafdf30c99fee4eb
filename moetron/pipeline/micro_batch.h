// What every layer may know of the micro-batch that it works on.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

namespace moetron {

class KeyValueCache;  // nn/attention.h

// Hidden states are [tokens, hidden], the sequences one after the other. Under tensor parallelism
// each rank of the group holds an equal slice of them (parallel/token_shards.h).
struct MicroBatch {
  at::Tensor tokens;  // [batch, seq] int64
  at::Tensor labels;  // [batch, seq] int64, -100 where there is no loss; undefined: no loss wanted
  at::Tensor positions;  // [batch, seq] int64
  // The gradient that the backward of its summed loss will begin with, where that is known in the
  // forward: the head may then compute its gradients there, and need not keep the logits.
  std::optional<double> d_loss;
  bool training = false;           // count routed tokens (the router's bias follows them)
  KeyValueCache* cache = nullptr;  // generation: the tokens follow those of the cache
};

}  // namespace moetron
