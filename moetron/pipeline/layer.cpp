#include "moetron/pipeline/layer.h"

#include <ATen/ATen.h>

#include "moetron/autograd/memory_meter.h"
#include "moetron/base/error.h"

namespace moetron {

at::Tensor DecoderLayer::shared_expert(const at::Tensor&, const MicroBatch&, SegmentRun&) {
  throw InternalError("a layer without a shared expert was asked for it");
}

LayerForward::LayerForward(Layer& layer, const MicroBatch& micro_batch,
                           const ForwardSettings& settings, LayerRun& run)
    : decoder_(layer.decoder()),
      layer_(layer),
      micro_batch_(micro_batch),
      settings_(settings),
      run_(run),
      keeps_experts_(settings.keep == Keep::kAll) {}

void LayerForward::attention(const at::Tensor& hidden) {
  if (decoder_ == nullptr) return single_segment(hidden);
  {
    const SpanScope span(settings_.trace, "attention", Pass::kForward);
    const MemoryScope scope(settings_.meter, "attention");
    const bool with_grad = settings_.keep >= Keep::kAttention;
    const at::AutoGradMode grad_mode(with_grad);
    SegmentRun& segment = run_.attention.emplace(with_grad);
    mid_ = decoder_->attention(segment.input(hidden), micro_batch_, settings_.earlier, segment);
    mid_.residual = segment.output(mid_.residual);
    mid_.normed = segment.output(mid_.normed);
    if (mid_.routing.probabilities.defined()) {
      mid_.routing.probabilities = segment.output(mid_.routing.probabilities);
    }
    if (mid_.aux_loss.defined()) run_.aux_loss = segment.output(mid_.aux_loss);
    keep_for_recomputation(hidden);
  }
  start_dispatch(mid_.normed, mid_.routing);
}

void LayerForward::single_segment(const at::Tensor& hidden) {
  auto& layer = static_cast<SingleSegmentLayer&>(layer_);
  const SpanScope span(settings_.trace, "end", Pass::kForward);
  const MemoryScope scope(settings_.meter, layer.purpose());
  const at::AutoGradMode grad_mode(keeps_experts_);
  SegmentRun& segment = run_.attention.emplace(keeps_experts_);
  const at::Tensor input = hidden.defined() ? segment.input(hidden) : hidden;
  output_ = segment.output(layer.compute(input, micro_batch_, segment));
}

void LayerForward::keep_for_recomputation(const at::Tensor& hidden) {
  if (settings_.keep == Keep::kNothing || settings_.keep == Keep::kAll) return;
  run_.routing = mid_.routing;
  if (settings_.keep == Keep::kInput) run_.input = hidden;
  if (settings_.keep == Keep::kAttention) {
    run_.normed = mid_.normed;
  } else {
    run_.routing.probabilities.reset();  // computed again, to the same bits, with a graph
  }
}

void LayerForward::start_dispatch(const at::Tensor& normed, const Routing& routing) {
  Dispatcher* dispatcher = decoder_->dispatcher();
  if (dispatcher == nullptr) return;
  const SpanScope span(settings_.trace, "start dispatch", Pass::kForward);
  const MemoryScope scope(settings_.meter, "dispatch");
  const at::NoGradGuard no_grad;
  dispatch_ = dispatcher->start_dispatch(normed, routing);
}

void LayerForward::dispatch_again() {
  mid_.normed = run_.normed;
  start_dispatch(run_.normed, run_.routing);
}

void LayerForward::shared_expert() {
  if (decoder_ == nullptr || !decoder_->has_shared_expert()) return;
  const SpanScope span(settings_.trace, "shared expert", Pass::kForward);
  const MemoryScope scope(settings_.meter, "shared expert");
  const at::AutoGradMode grad_mode(keeps_experts_);
  SegmentRun& segment = run_.shared_expert.emplace(keeps_experts_);
  shared_ =
      segment.output(decoder_->shared_expert(segment.input(mid_.normed), micro_batch_, segment));
}

// The weighted rows of the experts, or a dense layer's output.
at::Tensor LayerForward::run_experts() {
  if (dispatch_) {
    const SpanScope span(settings_.trace, "dispatch", Pass::kForward, /*waits=*/true);
    const MemoryScope scope(settings_.meter, "dispatch");
    const at::NoGradGuard no_grad;
    run_.dispatched = dispatch_->finish();
    dispatch_.reset();
  }
  const bool is_dense = decoder_->dispatcher() == nullptr;
  const SpanScope span(settings_.trace, is_dense ? "mlp" : "experts", Pass::kForward);
  const MemoryScope scope(settings_.meter, is_dense ? "mlp" : "experts");
  const at::AutoGradMode grad_mode(keeps_experts_);
  SegmentRun& segment = run_.experts.emplace(keeps_experts_);
  const at::Tensor normed = std::exchange(mid_.normed, {});
  if (is_dense) {
    return segment.output(
        decoder_->experts(segment.input(normed), at::Tensor(), {}, micro_batch_, segment));
  }
  Dispatched& dispatched = run_.dispatched;
  const at::Tensor rows = segment.input(std::exchange(dispatched.rows, {}));
  const at::Tensor probabilities = segment.input(dispatched.probabilities);
  return segment.output(
      decoder_->experts(rows, probabilities, dispatched.rows_per_expert, micro_batch_, segment));
}

void LayerForward::experts() {
  if (decoder_ == nullptr) return;
  output_ = run_experts();
  Dispatcher* dispatcher = decoder_->dispatcher();
  if (dispatcher != nullptr && settings_.wants_output) {
    const SpanScope span(settings_.trace, "start combine", Pass::kForward);
    const MemoryScope scope(settings_.meter, "combine");
    const at::NoGradGuard no_grad;
    combine_ = dispatcher->start_combine(std::exchange(output_, {}), run_.dispatched.plan);
  }
  if (keeps_experts_) return;
  run_.experts.reset();
  run_.shared_expert.reset();
  // Combine's backward needs the plan alone, and may then begin beside a new dispatch.
  auto plan = settings_.keep == Keep::kAttention ? std::move(run_.dispatched.plan) : nullptr;
  run_.dispatched = {};
  run_.dispatched.plan = std::move(plan);
}

void LayerForward::experts_again() {
  run_experts();
}

at::Tensor LayerForward::finish() {
  if (decoder_ == nullptr) return std::move(output_);
  if (!settings_.wants_output) return {};
  const at::NoGradGuard no_grad;
  if (combine_) {
    const SpanScope span(settings_.trace, "combine", Pass::kForward, /*waits=*/true);
    const MemoryScope scope(settings_.meter, "combine");
    output_ = combine_->finish();
    combine_.reset();
  }
  const SpanScope span(settings_.trace, "aggregate", Pass::kForward);
  const MemoryScope scope(settings_.meter, "hidden states");
  at::Tensor output = std::move(output_).add(mid_.residual);
  if (shared_.defined()) output.add_(shared_);
  return output;
}

LayerBackward::LayerBackward(Layer& layer, const MicroBatch& micro_batch,
                             const BackwardSettings& settings, LayerRun& run)
    : decoder_(layer.decoder()), micro_batch_(micro_batch), settings_(settings), run_(run) {
  if (run_.normed.defined()) {
    again_.emplace(layer, micro_batch, ForwardSettings{.trace = settings.trace}, run);
  }
}

std::vector<at::Tensor> LayerBackward::input_grads(SegmentRun& segment, const char* name,
                                                   const std::vector<at::Tensor>& d_outputs) {
  const SpanScope span(settings_.trace, name, Pass::kBackwardInput);
  return segment.backward(d_outputs);
}

void LayerBackward::weight_grads(SegmentRun& segment, const char* name) {
  if (settings_.later != nullptr) return segment.weight_grads().move_to(*settings_.later);
  const SpanScope span(settings_.trace, name, Pass::kBackwardWeight);
  segment.weight_grads().run();
}

void LayerBackward::start(const at::Tensor& d_output) {
  const at::NoGradGuard no_grad;
  d_output_ = d_output;
  if (decoder_ == nullptr || decoder_->dispatcher() == nullptr) return;
  const auto plan = run_.dispatched.plan;
  if (again_) again_->dispatch_again();
  const SpanScope span(settings_.trace, "start combine", Pass::kBackwardInput);
  combine_ = decoder_->dispatcher()->start_combine_backward(d_output, plan);
}

void LayerBackward::experts() {
  if (decoder_ == nullptr) return;
  if (again_) {
    again_->shared_expert();
    again_->experts_again();
  }
  const at::NoGradGuard no_grad;
  if (run_.shared_expert) {
    d_shared_ = input_grads(*run_.shared_expert, "shared expert", {d_output_})[0];
  }
  if (!combine_) {
    grads_.d_hidden = input_grads(*run_.experts, "mlp", {d_output_})[0];
    return;
  }
  at::Tensor d_rows;
  {
    const SpanScope span(settings_.trace, "combine", Pass::kBackwardInput, /*waits=*/true);
    d_rows = combine_->finish();
    combine_.reset();
  }
  const auto d = input_grads(*run_.experts, "experts", {std::move(d_rows)});
  const SpanScope span(settings_.trace, "start dispatch", Pass::kBackwardInput);
  dispatch_ = decoder_->dispatcher()->start_dispatch_backward(d[0], d[1], run_.dispatched.plan);
}

void LayerBackward::expert_weights() {
  if (decoder_ == nullptr) return;
  if (run_.shared_expert) weight_grads(*run_.shared_expert, "shared expert");
  weight_grads(*run_.experts, "experts");
  run_.experts.reset();
  run_.shared_expert.reset();
}

at::Tensor LayerBackward::attention() {
  const at::NoGradGuard no_grad;
  if (decoder_ == nullptr) {
    const auto d_inputs = input_grads(*run_.attention, "end", {d_output_});
    return d_inputs.empty() ? at::Tensor() : d_inputs[0];
  }
  if (dispatch_) {
    const SpanScope span(settings_.trace, "dispatch", Pass::kBackwardInput, /*waits=*/true);
    grads_ = dispatch_->finish();
    dispatch_.reset();
  }
  run_.dispatched = {};
  if (d_shared_.defined()) grads_.d_hidden = grads_.d_hidden + d_shared_;
  std::vector<at::Tensor> d_outputs = {std::move(d_output_), std::move(grads_.d_hidden)};
  if (grads_.d_probabilities.defined()) d_outputs.push_back(std::move(grads_.d_probabilities));
  if (run_.aux_loss.defined()) {
    d_outputs.push_back(at::full_like(run_.aux_loss, settings_.d_aux));
  }
  return input_grads(*run_.attention, "attention", d_outputs)[0];
}

void LayerBackward::attention_weights() {
  weight_grads(*run_.attention, decoder_ == nullptr ? "end" : "attention");
}

at::Tensor forward_layer(Layer& layer, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         const ForwardSettings& settings, LayerRun& run) {
  LayerForward forward(layer, micro_batch, settings, run);
  forward.attention(hidden);
  forward.shared_expert();
  forward.experts();
  return forward.finish();
}

}  // namespace moetron
