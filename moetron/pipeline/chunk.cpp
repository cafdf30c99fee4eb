#include "moetron/pipeline/chunk.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Decides for each layer of a chunk, in order, what its forward keeps.
class KeepPolicy {
 public:
  explicit KeepPolicy(const RecomputeSettings& settings) : settings_(settings) {}

  Keep next(Layer& layer) {
    DecoderLayer* decoder = layer.decoder();
    if (decoder == nullptr) return Keep::kAll;
    switch (settings_.kind) {
      case RecomputeSettings::Kind::kNone:
        return Keep::kAll;
      case RecomputeSettings::Kind::kMoeLayer:
        return decoder->dispatcher() == nullptr ? Keep::kAll : Keep::kAttention;
      case RecomputeSettings::Kind::kFull:
        return num_seen_++ % settings_.num_layers == 0 ? Keep::kInput : Keep::kRouting;
    }
    throw InternalError("unknown kind of recomputation");
  }

 private:
  const RecomputeSettings& settings_;
  int64_t num_seen_ = 0;
};

// Layers first..last again, from the input of the first, with all that their backwards need.
void recompute(Chunk& chunk, size_t first, size_t last, const MicroBatch& micro_batch,
               ChunkRun& run) {
  at::Tensor flowing = run.layers[first].input;
  for (size_t i = first; i <= last; ++i) {
    const Routing earlier = run.layers[i].routing;
    run.layers[i] = {};
    const ForwardSettings settings{.earlier = &earlier, .wants_output = i < last};
    flowing = forward_layer(*chunk.layers[i], flowing, micro_batch, settings, run.layers[i]);
  }
}

}  // namespace

at::Tensor forward_chunk(Chunk& chunk, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         bool with_grad, ChunkRun& run, const ChunkHooks& hooks) {
  at::Tensor flowing = hidden;
  KeepPolicy policy(chunk.recompute);
  for (const auto& layer : chunk.layers) {
    if (hooks.before_forward) hooks.before_forward(*layer);
    LayerRun layer_run;
    const ForwardSettings settings{.keep = with_grad ? policy.next(*layer) : Keep::kNothing,
                                   .meter = hooks.meter};
    flowing = forward_layer(*layer, flowing, micro_batch, settings, layer_run);
    if (layer_run.aux_loss.defined()) {
      run.aux_loss =
          run.aux_loss.defined() ? run.aux_loss + layer_run.aux_loss : layer_run.aux_loss;
    }
    if (with_grad) run.layers.push_back(std::move(layer_run));
  }
  return flowing;
}

at::Tensor backward_chunk(Chunk& chunk, const at::Tensor& d_output, double d_aux,
                          const MicroBatch& micro_batch, ChunkRun& run, const ChunkHooks& hooks) {
  at::Tensor d_flowing = d_output;
  for (size_t i = chunk.layers.size(); i-- > 0;) {
    if (!run.layers[i].attention->with_grad()) {
      size_t first = i;
      while (!run.layers[first].input.defined()) --first;
      recompute(chunk, first, i, micro_batch, run);
    }
    d_flowing = backward_layer(*chunk.layers[i], d_flowing, d_aux, micro_batch, run.layers[i]);
    run.layers.pop_back();
    if (hooks.after_backward) hooks.after_backward(*chunk.layers[i]);
  }
  return d_flowing;
}

}  // namespace moetron
