#include "moetron/pipeline/layer.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Input gradients at once, weight gradients right behind them.
std::vector<at::Tensor> backward_segment(SegmentRun& run,
                                         const std::vector<at::Tensor>& d_outputs) {
  auto d_inputs = run.backward(d_outputs);
  run.weight_grads().run();
  return d_inputs;
}

at::Tensor run_experts(DecoderLayer& layer, const AttentionOutput& mid, bool with_grad,
                       LayerRun& run) {
  SegmentRun& segment = run.experts.emplace(with_grad);
  Dispatcher* dispatcher = layer.dispatcher();
  if (dispatcher == nullptr) {
    return segment.output(layer.experts(segment.input(mid.normed), at::Tensor(), {}, segment));
  }
  run.dispatched = dispatcher->dispatch(mid.normed.flatten(0, 1), mid.routing);
  const at::Tensor rows = segment.input(run.dispatched.rows);
  const at::Tensor probabilities = segment.input(run.dispatched.probabilities);
  const at::Tensor weighted =
      segment.output(layer.experts(rows, probabilities, run.dispatched.rows_per_expert, segment));
  run.dispatched.rows.reset();  // the segment keeps what its backward needs
  return dispatcher->combine(weighted, *run.dispatched.plan).view_as(mid.normed);
}

at::Tensor forward_decoder(DecoderLayer& layer, const at::Tensor& hidden,
                           const MicroBatch& micro_batch, bool with_grad, LayerRun& run) {
  SegmentRun& attention = run.attention.emplace(with_grad);
  AttentionOutput mid = layer.attention(attention.input(hidden), micro_batch, attention);
  mid.residual = attention.output(mid.residual);
  mid.normed = attention.output(mid.normed);
  if (mid.routing.probabilities.defined()) {
    mid.routing.probabilities = attention.output(mid.routing.probabilities);
  }
  if (mid.aux_loss.defined()) run.aux_loss = attention.output(mid.aux_loss);

  at::Tensor output = mid.residual + run_experts(layer, mid, with_grad, run);
  if (layer.has_shared_expert()) {
    SegmentRun& shared = run.shared_expert.emplace(with_grad);
    output.add_(shared.output(layer.shared_expert(shared.input(mid.normed), shared)));
  }
  return output;
}

at::Tensor backward_decoder(DecoderLayer& layer, const at::Tensor& d_output, double d_aux,
                            LayerRun& run) {
  at::Tensor d_normed;
  at::Tensor d_probabilities;
  if (Dispatcher* dispatcher = layer.dispatcher()) {
    const DispatchPlan& plan = *run.dispatched.plan;
    const at::Tensor d_rows = dispatcher->combine_backward(d_output.flatten(0, 1), plan);
    const auto d = backward_segment(*run.experts, {d_rows});
    const DispatchGrads grads = dispatcher->dispatch_backward(d[0], d[1], plan);
    d_normed = grads.d_hidden.view_as(d_output);
    d_probabilities = grads.d_probabilities;
  } else {
    d_normed = backward_segment(*run.experts, {d_output})[0];
  }
  if (run.shared_expert) d_normed = d_normed + backward_segment(*run.shared_expert, {d_output})[0];

  std::vector<at::Tensor> d_outputs = {d_output, d_normed};
  if (d_probabilities.defined()) d_outputs.push_back(d_probabilities);
  if (run.aux_loss.defined()) d_outputs.push_back(at::full_like(run.aux_loss, d_aux));
  return backward_segment(*run.attention, d_outputs)[0];
}

}  // namespace

at::Tensor DecoderLayer::shared_expert(const at::Tensor&, SegmentRun&) {
  throw InternalError("a layer without a shared expert was asked for it");
}

at::Tensor forward_layer(Layer& layer, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         bool with_grad, LayerRun& run) {
  const at::AutoGradMode grad_mode(with_grad);
  if (DecoderLayer* decoder = layer.decoder()) {
    return forward_decoder(*decoder, hidden, micro_batch, with_grad, run);
  }
  auto& single = static_cast<SingleSegmentLayer&>(layer);
  SegmentRun& segment = run.attention.emplace(with_grad);
  const at::Tensor input = hidden.defined() ? segment.input(hidden) : hidden;
  return segment.output(single.compute(input, micro_batch, segment));
}

at::Tensor backward_layer(Layer& layer, const at::Tensor& d_output, double d_aux, LayerRun& run) {
  const at::NoGradGuard no_grad;
  if (DecoderLayer* decoder = layer.decoder())
    return backward_decoder(*decoder, d_output, d_aux, run);
  const auto d_inputs = backward_segment(*run.attention, {d_output});
  return d_inputs.empty() ? at::Tensor() : d_inputs[0];
}

}  // namespace moetron
