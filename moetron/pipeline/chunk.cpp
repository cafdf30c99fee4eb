#include "moetron/pipeline/chunk.h"

#include <ATen/ATen.h>

namespace moetron {

at::Tensor forward_chunk(Chunk& chunk, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         bool with_grad, ChunkRun& run) {
  at::Tensor flowing = hidden;
  for (const auto& layer : chunk.layers) {
    LayerRun layer_run;
    flowing = forward_layer(*layer, flowing, micro_batch, with_grad, layer_run);
    if (layer_run.aux_loss.defined()) {
      run.aux_loss =
          run.aux_loss.defined() ? run.aux_loss + layer_run.aux_loss : layer_run.aux_loss;
    }
    if (with_grad) run.layers.push_back(std::move(layer_run));
  }
  return flowing;
}

at::Tensor backward_chunk(Chunk& chunk, const at::Tensor& d_output, double d_aux, ChunkRun& run) {
  at::Tensor d_flowing = d_output;
  for (size_t i = chunk.layers.size(); i-- > 0;) {
    d_flowing = backward_layer(*chunk.layers[i], d_flowing, d_aux, run.layers[i]);
    run.layers.pop_back();
  }
  return d_flowing;
}

}  // namespace moetron
