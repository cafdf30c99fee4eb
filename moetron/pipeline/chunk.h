// A chunk: the layers that a rank holds in one piece of the pipeline. Its forward and backward for
// one micro-batch are walks over the layers, which an executor may take step by step.
#pragma once

#include <functional>
#include <memory>
#include <optional>
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
  std::vector<std::unique_ptr<Layer>> layers;  // none: what comes in goes out
  RecomputeSettings recompute;
};

// One micro-batch's way through a chunk.
struct ChunkRun {
  std::vector<LayerRun> layers;
  std::vector<at::Tensor> aux_losses;  // by layer: a detached scalar, undefined without
};

// What a walk does beside computing.
struct ChunkHooks {
  std::function<void(Layer&)> before_forward;  // waits for the layer's parameters
  std::function<void(Layer&)> after_backward;  // the layer's weight gradients are complete
  MemoryMeter* meter = nullptr;                // of the forward
  TraceTarget trace = {};
};

// The forward of one micro-batch, layer by layer: the steps of LayerForward on the current layer.
// Chunk, micro-batch, run and hooks outlive it.
class ChunkForward {
 public:
  // hidden: the chunk's input, undefined where it begins with the embedding.
  ChunkForward(Chunk& chunk, const at::Tensor& hidden, const MicroBatch& micro_batch,
               bool with_grad, ChunkRun& run, const ChunkHooks& hooks);

  bool done() const { return next_ == chunk_.layers.size(); }
  // Whether the current layer is one with attention and experts; false at the ends.
  bool at_decoder() const { return is_decoder(next_); }
  bool next_is_decoder() const { return is_decoder(next_ + 1); }
  bool dispatches() const { return at_decoder() && chunk_.layers[next_]->decoder()->dispatcher(); }

  void attention();
  void shared_expert() { layer_->shared_expert(); }
  void experts() { layer_->experts(); }
  void finish();  // the next layer becomes the current one
  void whole_layer();

  // Once done: hidden states, or the summed loss (a scalar) where the chunk ends with the head.
  at::Tensor output() { return std::move(flowing_); }

 private:
  bool is_decoder(size_t layer) const {
    return layer < chunk_.layers.size() && chunk_.layers[layer]->decoder() != nullptr;
  }
  Keep keep(Layer& layer);

  Chunk& chunk_;
  at::Tensor flowing_;
  const MicroBatch& micro_batch_;
  bool with_grad_;
  ChunkRun& run_;
  const ChunkHooks& hooks_;
  size_t next_ = 0;
  int64_t num_decoders_ = 0;  // seen so far
  std::optional<LayerForward> layer_;
};

// The backward of one micro-batch, from the last layer to the first: the steps of LayerBackward on
// the current layer. It recomputes what was left out, and frees the run layer by layer.
class ChunkBackward {
 public:
  // d_output: the output's gradient; for a loss one over the divisor. d_aux: the auxiliary losses'
  // factor. `later` takes the weight gradients (I); null: they are computed at once (B).
  ChunkBackward(Chunk& chunk, const at::Tensor& d_output, double d_aux,
                const MicroBatch& micro_batch, WeightGradQueue* later, ChunkRun& run,
                const ChunkHooks& hooks);

  bool done() const { return left_ == 0; }  // but for the last attention_weights()
  // Of the current layer, as in ChunkForward.
  bool at_decoder() const { return !done() && chunk_.layers[left_ - 1]->decoder() != nullptr; }
  bool dispatches() const {
    return at_decoder() && chunk_.layers[left_ - 1]->decoder()->dispatcher();
  }

  void start();
  void experts() { layer_->experts(); }
  void expert_weights() { layer_->expert_weights(); }
  void attention();          // the layer before becomes the current one, and may be started
  void attention_weights();  // of the layer of the last attention()
  void whole_layer();

  // Once done: the input's gradient, undefined for the embedding.
  at::Tensor d_input() { return std::move(d_flowing_); }

 private:
  void recompute(size_t last);  // the layers up to this one, from the nearest kept input

  Chunk& chunk_;
  at::Tensor d_flowing_;
  BackwardSettings settings_;
  const MicroBatch& micro_batch_;
  ChunkRun& run_;
  const ChunkHooks& hooks_;
  size_t left_;  // layers before and with the current one
  std::optional<LayerBackward> layer_;
  std::optional<LayerBackward> weights_of_;  // what attention_weights() is about
};

// How often a forward, or a backward, of the chunk waits for communication.
size_t num_waits(const Chunk& chunk);

// All layers in a row.
at::Tensor forward_chunk(Chunk& chunk, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         bool with_grad, ChunkRun& run, const ChunkHooks& hooks = {});
at::Tensor backward_chunk(Chunk& chunk, const at::Tensor& d_output, double d_aux,
                          const MicroBatch& micro_batch, ChunkRun& run,
                          const ChunkHooks& hooks = {});

}  // namespace moetron
