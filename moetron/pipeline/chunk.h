// A chunk: the layers that a rank holds in one piece of the pipeline, run in a row.
#pragma once

#include <memory>
#include <vector>

#include "moetron/pipeline/layer.h"

namespace moetron {

// What the backward recomputes instead of keeping. (What --mlp-recompute leaves out is the experts'
// own business.)
struct RecomputeSettings {
  enum class Kind {
    kNone,
    kMoeLayer,  // dispatch, experts and shared expert of the layers that have a router
    kFull,      // decoder layers, `num_layers` at a time from the input of the first
  };
  Kind kind = Kind::kNone;
  int64_t num_layers = 1;
};

struct Chunk {
  std::vector<std::unique_ptr<Layer>> layers;
  RecomputeSettings recompute;
};

// One micro-batch's way through a chunk.
struct ChunkRun {
  std::vector<LayerRun> layers;
  at::Tensor aux_loss;  // the layers' sum, a detached scalar; undefined without
};

// What a caller may do between the layers of a chunk: wait for parameters, reduce gradients.
struct ChunkHooks {
  std::function<void(Layer&)> before_forward;
  std::function<void(Layer&)> after_backward;  // the layer's weight gradients are complete
  MemoryMeter* meter = nullptr;                // of the forward
};

// hidden: the chunk's input, undefined where it begins with the embedding. Returns its output:
// hidden states, or the summed loss (a scalar) where it ends with the head.
at::Tensor forward_chunk(Chunk& chunk, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         bool with_grad, ChunkRun& run, const ChunkHooks& hooks = {});

// Adds to the parameters' accumulators and frees the run layer by layer. d_output: the output's
// gradient (for a loss: one over the divisor); d_aux: the auxiliary losses' factor.
at::Tensor backward_chunk(Chunk& chunk, const at::Tensor& d_output, double d_aux,
                          const MicroBatch& micro_batch, ChunkRun& run,
                          const ChunkHooks& hooks = {});

}  // namespace moetron
