// A chunk: the layers that a rank holds in one piece of the pipeline, run in a row.
#pragma once

#include <memory>
#include <vector>

#include "moetron/pipeline/layer.h"

namespace moetron {

struct Chunk {
  std::vector<std::unique_ptr<Layer>> layers;
};

// One micro-batch's way through a chunk.
struct ChunkRun {
  std::vector<LayerRun> layers;
  at::Tensor aux_loss;  // the layers' sum, a detached scalar; undefined without
};

// hidden: the chunk's input, undefined where it begins with the embedding. Returns its output:
// hidden states, or the summed loss (a scalar) where it ends with the head.
at::Tensor forward_chunk(Chunk& chunk, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         bool with_grad, ChunkRun& run);

// Adds to the parameters' accumulators and frees the run layer by layer. d_output: the output's
// gradient (for a loss: one over the divisor); d_aux: the auxiliary losses' factor.
at::Tensor backward_chunk(Chunk& chunk, const at::Tensor& d_output, double d_aux, ChunkRun& run);

}  // namespace moetron
