#include "moetron/pipeline/chunk.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {

ChunkForward::ChunkForward(Chunk& chunk, const at::Tensor& hidden, const MicroBatch& micro_batch,
                           bool with_grad, ChunkRun& run, const ChunkHooks& hooks)
    : chunk_(chunk),
      flowing_(hidden),
      micro_batch_(micro_batch),
      with_grad_(with_grad),
      run_(run),
      hooks_(hooks) {
  // A layer's forward keeps a reference into it.
  run_.layers.reserve(chunk.layers.size());
}

Keep ChunkForward::keep(Layer& layer) {
  if (!with_grad_) return Keep::kNothing;
  DecoderLayer* decoder = layer.decoder();
  if (decoder == nullptr) return Keep::kAll;
  switch (chunk_.recompute.kind) {
    case RecomputeSettings::Kind::kNone:
      return Keep::kAll;
    case RecomputeSettings::Kind::kMoeLayer:
      return decoder->dispatcher() == nullptr ? Keep::kAll : Keep::kAttention;
    case RecomputeSettings::Kind::kFull:
      return num_decoders_++ % chunk_.recompute.num_layers == 0 ? Keep::kInput : Keep::kRouting;
  }
  throw InternalError("unknown kind of recomputation");
}

void ChunkForward::attention() {
  Layer& layer = *chunk_.layers[next_];
  if (hooks_.before_forward) hooks_.before_forward(layer);
  ForwardSettings settings{.keep = keep(layer), .meter = hooks_.meter, .trace = hooks_.trace};
  settings.trace.label.layer = static_cast<int>(next_);
  layer_.emplace(layer, micro_batch_, settings, run_.layers.emplace_back());
  layer_->attention(std::exchange(flowing_, {}));
}

void ChunkForward::finish() {
  flowing_ = layer_->finish();
  layer_.reset();
  run_.aux_losses.push_back(run_.layers.back().aux_loss);
  if (!with_grad_) run_.layers.clear();
  ++next_;
}

void ChunkForward::whole_layer() {
  attention();
  shared_expert();
  experts();
  finish();
}

ChunkBackward::ChunkBackward(Chunk& chunk, const at::Tensor& d_output, double d_aux,
                             const MicroBatch& micro_batch, WeightGradQueue* later, ChunkRun& run,
                             const ChunkHooks& hooks)
    : chunk_(chunk),
      d_flowing_(d_output),
      settings_{.d_aux = d_aux, .later = later, .trace = hooks.trace},
      micro_batch_(micro_batch),
      run_(run),
      hooks_(hooks),
      left_(chunk.layers.size()) {}

void ChunkBackward::recompute(size_t last) {
  size_t first = last;
  while (!run_.layers[first].input.defined()) --first;
  at::Tensor flowing = run_.layers[first].input;
  for (size_t i = first; i <= last; ++i) {
    const Routing earlier = run_.layers[i].routing;
    run_.layers[i] = {};
    ForwardSettings settings{
        .earlier = &earlier, .wants_output = i < last, .trace = settings_.trace};
    settings.trace.label.layer = static_cast<int>(i);
    flowing = forward_layer(*chunk_.layers[i], flowing, micro_batch_, settings, run_.layers[i]);
  }
}

void ChunkBackward::start() {
  const size_t current = left_ - 1;
  if (!run_.layers[current].attention->with_grad()) recompute(current);
  settings_.trace.label.layer = static_cast<int>(current);
  layer_.emplace(*chunk_.layers[current], micro_batch_, settings_, run_.layers[current]);
  layer_->start(std::exchange(d_flowing_, {}));
}

void ChunkBackward::attention() {
  d_flowing_ = layer_->attention();
  weights_of_.emplace(std::move(*layer_));
  layer_.reset();
  --left_;
}

void ChunkBackward::attention_weights() {
  weights_of_->attention_weights();
  weights_of_.reset();
  run_.layers.pop_back();
  Layer& layer = *chunk_.layers[left_];
  if (settings_.later == nullptr && hooks_.after_backward) hooks_.after_backward(layer);
}

void ChunkBackward::whole_layer() {
  start();
  experts();
  expert_weights();
  attention();
  attention_weights();
}

size_t num_waits(const Chunk& chunk) {
  size_t count = 0;
  for (const auto& layer : chunk.layers) {
    DecoderLayer* decoder = layer->decoder();
    if (decoder != nullptr && decoder->dispatcher() != nullptr) count += 2;
  }
  return count;
}

at::Tensor forward_chunk(Chunk& chunk, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         bool with_grad, ChunkRun& run, const ChunkHooks& hooks) {
  ChunkForward forward(chunk, hidden, micro_batch, with_grad, run, hooks);
  while (!forward.done()) forward.whole_layer();
  return forward.output();
}

at::Tensor backward_chunk(Chunk& chunk, const at::Tensor& d_output, double d_aux,
                          const MicroBatch& micro_batch, ChunkRun& run, const ChunkHooks& hooks) {
  ChunkBackward backward(chunk, d_output, d_aux, micro_batch, /*later=*/nullptr, run, hooks);
  while (!backward.done()) backward.whole_layer();
  return backward.d_input();
}

}  // namespace moetron
