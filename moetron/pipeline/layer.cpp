#include "moetron/pipeline/layer.h"

#include <ATen/ATen.h>

#include "moetron/autograd/memory_meter.h"
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

// The forward of one decoder layer for one micro-batch.
class DecoderForward {
 public:
  DecoderForward(DecoderLayer& layer, const MicroBatch& micro_batch,
                 const ForwardSettings& settings, LayerRun& run)
      : layer_(layer), micro_batch_(micro_batch), settings_(settings), run_(run) {}

  at::Tensor run(const at::Tensor& hidden) {
    const AttentionOutput mid = attention(hidden);
    keep_for_recomputation(hidden, mid);
    at::Tensor shared;
    at::Tensor output = feed_forward(mid, shared);
    if (!settings_.wants_output) return {};
    const MemoryScope scope(settings_.meter, "hidden states");
    output = output.add(mid.residual);
    if (shared.defined()) output.add_(shared);
    return output;
  }

  // Everything behind attention, with a graph; also what a recomputation does. Gives the weighted
  // rows of the experts, or a dense layer's output.
  at::Tensor experts(const at::Tensor& normed, const Routing& routing, bool with_grad,
                     at::Tensor& shared) {
    Dispatcher* dispatcher = layer_.dispatcher();
    std::optional<Pending<Dispatched>> dispatch;
    if (dispatcher != nullptr) {
      const MemoryScope scope(settings_.meter, "dispatch");
      dispatch = dispatcher->start_dispatch(normed, routing);
    }
    if (layer_.has_shared_expert()) {
      const MemoryScope scope(settings_.meter, "shared expert");
      SegmentRun& segment = run_.shared_expert.emplace(with_grad);
      shared = segment.output(layer_.shared_expert(segment.input(normed), micro_batch_, segment));
    }
    if (dispatch) {
      const MemoryScope scope(settings_.meter, "dispatch");
      run_.dispatched = dispatch->finish();
    }
    const MemoryScope scope(settings_.meter, dispatcher != nullptr ? "experts" : "mlp");
    SegmentRun& segment = run_.experts.emplace(with_grad);
    if (dispatcher == nullptr) {
      return segment.output(
          layer_.experts(segment.input(normed), at::Tensor(), {}, micro_batch_, segment));
    }
    Dispatched& dispatched = run_.dispatched;
    const at::Tensor rows = segment.input(std::exchange(dispatched.rows, {}));
    const at::Tensor probabilities = segment.input(dispatched.probabilities);
    return segment.output(
        layer_.experts(rows, probabilities, dispatched.rows_per_expert, micro_batch_, segment));
  }

 private:
  AttentionOutput attention(const at::Tensor& hidden) {
    const MemoryScope scope(settings_.meter, "attention");
    const bool with_grad = settings_.keep >= Keep::kAttention;
    const at::AutoGradMode grad_mode(with_grad);
    SegmentRun& segment = run_.attention.emplace(with_grad);
    AttentionOutput mid =
        layer_.attention(segment.input(hidden), micro_batch_, settings_.earlier, segment);
    mid.residual = segment.output(mid.residual);
    mid.normed = segment.output(mid.normed);
    if (mid.routing.probabilities.defined()) {
      mid.routing.probabilities = segment.output(mid.routing.probabilities);
    }
    if (mid.aux_loss.defined()) run_.aux_loss = segment.output(mid.aux_loss);
    return mid;
  }

  void keep_for_recomputation(const at::Tensor& hidden, const AttentionOutput& mid) {
    if (settings_.keep == Keep::kNothing || settings_.keep == Keep::kAll) return;
    run_.routing = mid.routing;
    if (settings_.keep == Keep::kInput) run_.input = hidden;
    if (settings_.keep == Keep::kAttention) {
      run_.normed = mid.normed;
    } else {
      run_.routing.probabilities.reset();  // computed again, to the same bits, with a graph
    }
  }

  // [slice, hidden], what is added to the residual; the shared expert's part apart.
  at::Tensor feed_forward(const AttentionOutput& mid, at::Tensor& shared) {
    const bool with_grad = settings_.keep == Keep::kAll;
    const at::AutoGradMode grad_mode(with_grad);
    const at::Tensor weighted = experts(mid.normed, mid.routing, with_grad, shared);
    if (settings_.keep != Keep::kAll) {
      run_.experts.reset();
      run_.shared_expert.reset();
    }
    at::Tensor output = weighted;
    if (Dispatcher* dispatcher = layer_.dispatcher(); dispatcher && settings_.wants_output) {
      const MemoryScope scope(settings_.meter, "combine");
      output = dispatcher->start_combine(weighted, run_.dispatched.plan).finish();
    }
    if (settings_.keep != Keep::kAll) run_.dispatched = {};
    return output;
  }

  DecoderLayer& layer_;
  const MicroBatch& micro_batch_;
  const ForwardSettings& settings_;
  LayerRun& run_;
};

void recompute_experts(DecoderLayer& layer, const MicroBatch& micro_batch, LayerRun& run) {
  const at::AutoGradMode with_grad(true);
  const ForwardSettings settings;
  at::Tensor shared;  // its value is not needed again
  DecoderForward(layer, micro_batch, settings, run).experts(run.normed, run.routing, true, shared);
}

// d_normed, and the probabilities' gradient of a layer with experts.
DispatchGrads backward_feed_forward(DecoderLayer& layer, const at::Tensor& d_output,
                                    LayerRun& run) {
  Dispatcher* dispatcher = layer.dispatcher();
  if (dispatcher == nullptr) return {backward_segment(*run.experts, {d_output})[0], {}};
  const auto& plan = run.dispatched.plan;
  Pending<at::Tensor> combine = dispatcher->start_combine_backward(d_output, plan);
  at::Tensor d_shared;
  if (run.shared_expert) d_shared = backward_segment(*run.shared_expert, {d_output})[0];
  const auto d = run.experts->backward({combine.finish()});
  Pending<DispatchGrads> dispatch = dispatcher->start_dispatch_backward(d[0], d[1], plan);
  run.experts->weight_grads().run();
  DispatchGrads grads = dispatch.finish();
  if (d_shared.defined()) grads.d_hidden = grads.d_hidden + d_shared;
  return grads;
}

at::Tensor backward_decoder(DecoderLayer& layer, const at::Tensor& d_output, double d_aux,
                            const MicroBatch& micro_batch, LayerRun& run) {
  if (run.normed.defined()) recompute_experts(layer, micro_batch, run);
  const DispatchGrads grads = backward_feed_forward(layer, d_output, run);
  run.experts.reset();
  run.shared_expert.reset();
  run.dispatched = {};
  std::vector<at::Tensor> d_outputs = {d_output, grads.d_hidden};
  if (grads.d_probabilities.defined()) d_outputs.push_back(grads.d_probabilities);
  if (run.aux_loss.defined()) d_outputs.push_back(at::full_like(run.aux_loss, d_aux));
  return backward_segment(*run.attention, d_outputs)[0];
}

at::Tensor forward_single(SingleSegmentLayer& layer, const at::Tensor& hidden,
                          const MicroBatch& micro_batch, const ForwardSettings& settings,
                          LayerRun& run) {
  const MemoryScope scope(settings.meter, layer.purpose());
  const bool with_grad = settings.keep == Keep::kAll;
  const at::AutoGradMode grad_mode(with_grad);
  SegmentRun& segment = run.attention.emplace(with_grad);
  const at::Tensor input = hidden.defined() ? segment.input(hidden) : hidden;
  return segment.output(layer.compute(input, micro_batch, segment));
}

}  // namespace

at::Tensor DecoderLayer::shared_expert(const at::Tensor&, const MicroBatch&, SegmentRun&) {
  throw InternalError("a layer without a shared expert was asked for it");
}

at::Tensor forward_layer(Layer& layer, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         const ForwardSettings& settings, LayerRun& run) {
  DecoderLayer* decoder = layer.decoder();
  if (decoder == nullptr) {
    return forward_single(static_cast<SingleSegmentLayer&>(layer), hidden, micro_batch, settings,
                          run);
  }
  return DecoderForward(*decoder, micro_batch, settings, run).run(hidden);
}

at::Tensor backward_layer(Layer& layer, const at::Tensor& d_output, double d_aux,
                          const MicroBatch& micro_batch, LayerRun& run) {
  const at::NoGradGuard no_grad;
  if (DecoderLayer* decoder = layer.decoder()) {
    return backward_decoder(*decoder, d_output, d_aux, micro_batch, run);
  }
  const auto d_inputs = backward_segment(*run.attention, {d_output});
  return d_inputs.empty() ? at::Tensor() : d_inputs[0];
}

}  // namespace moetron
