// The segment contract (DESIGN: idea 1). A decoder layer is the chain
//   attention -> dispatch -> experts -> combine -> aggregate,   with the shared expert beside it,
// cut where communication happens. The model implements attention, experts and shared_expert; the
// engine owns dispatch, combine and aggregate (residual + combined + shared), and puts the shared
// expert under dispatch. A dense layer has no dispatcher: its feed-forward is its `experts`, fed
// with the normed hidden state itself. Embedding and head are layers of one segment. Each segment
// runs forward and backward on its own, so that an executor may interleave the segments of two
// micro-batches; running the chain in a row is the plain path, by the same code.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/segment.h"
#include "moetron/parallel/micro_batch.h"
#include "moetron/pipeline/dispatch.h"
#include "moetron/pipeline/pipeline_trace.h"

namespace moetron {

class MemoryMeter;
class Parameter;

struct AttentionOutput {
  at::Tensor residual;  // [slice, hidden], the input plus the attention's output
  at::Tensor normed;    // [slice, hidden], what the feed-forward reads
  Routing routing;      // of a layer with experts
  at::Tensor aux_loss;  // scalar fp32, times the micro-batch's tokens; undefined without
};

class DecoderLayer;

class Layer {
 public:
  virtual ~Layer() = default;
  virtual void visit(const std::function<void(Parameter&)>& visitor) = 0;
  virtual DecoderLayer* decoder() { return nullptr; }
};

// Embedding; final norm, head and loss. `hidden` is undefined for the embedding; the head returns
// the summed loss, a scalar.
class SingleSegmentLayer : public Layer {
 public:
  virtual at::Tensor compute(const at::Tensor& hidden, const MicroBatch& micro_batch,
                             SegmentRun& run) = 0;
  virtual std::string purpose() const = 0;  // "embedding", "head and loss"
};

class DecoderLayer : public Layer {
 public:
  DecoderLayer* decoder() final { return this; }

  // Each is given tensors of the segment's own graph (from run.input()), and returns such tensors.
  // `earlier` is the routing of the first time where this is a recomputation, else null.
  virtual AttentionOutput attention(const at::Tensor& hidden, const MicroBatch& micro_batch,
                                    const Routing* earlier, SegmentRun& run) = 0;
  // rows [rows, hidden] -> [rows, hidden]; of a dense layer: [slice, hidden], probabilities
  // undefined, counts empty.
  virtual at::Tensor experts(const at::Tensor& rows, const at::Tensor& probabilities,
                             const ExpertRows& rows_per_expert, const MicroBatch& micro_batch,
                             SegmentRun& run) = 0;
  virtual bool has_shared_expert() const { return false; }
  virtual at::Tensor shared_expert(const at::Tensor& normed, const MicroBatch& micro_batch,
                                   SegmentRun& run);
  virtual Dispatcher* dispatcher() { return nullptr; }
};

// How much of a layer's forward is kept for its backward.
enum class Keep {
  kNothing,    // no backward follows
  kRouting,    // the layer is recomputed from the input of a layer before it
  kInput,      // the input and the routing: the whole layer is recomputed
  kAttention,  // all of attention, its outputs, routing and plan: the rest is recomputed
  kAll,
};

// One layer's forward for one micro-batch: what its backward needs.
struct LayerRun {
  std::optional<SegmentRun> attention;  // or the single segment
  std::optional<SegmentRun> shared_expert;
  std::optional<SegmentRun> experts;
  Dispatched dispatched;
  at::Tensor aux_loss;  // detached scalar, undefined without
  at::Tensor input;     // of Keep::kInput
  at::Tensor normed;    // of Keep::kAttention
  Routing routing;      // of every recomputation: never chosen again
};

struct ForwardSettings {
  Keep keep = Keep::kAll;
  const Routing* earlier = nullptr;  // of a recomputation, which counts no token again
  bool wants_output = true;  // false: nobody reads the layer's output, only the run (recomputation)
  MemoryMeter* meter = nullptr;
  TraceTarget trace = {};
};

// One layer's forward for one micro-batch, in the steps between which communication is under way:
// an executor may do something else there. The steps come in this order, each once; layer,
// micro-batch and run outlive the object. A layer of a single segment is done by attention().
class LayerForward {
 public:
  LayerForward(Layer& layer, const MicroBatch& micro_batch, const ForwardSettings& settings,
               LayerRun& run);

  // hidden [slice, hidden], undefined for the embedding. Starts dispatch.
  void attention(const at::Tensor& hidden);
  void shared_expert();
  void experts();       // waits for dispatch; starts combine
  at::Tensor finish();  // waits for combine; adds up -> [slice, hidden]

  // Instead of attention(), in a backward that kept the rest: dispatch, shared_expert() and
  // experts_again() compute what the layer left out.
  void dispatch_again();
  void experts_again();

 private:
  void single_segment(const at::Tensor& hidden);
  void keep_for_recomputation(const at::Tensor& hidden);
  void start_dispatch(const at::Tensor& normed, const Routing& routing);
  at::Tensor run_experts();

  DecoderLayer* decoder_;  // null: a single segment
  Layer& layer_;
  const MicroBatch& micro_batch_;
  ForwardSettings settings_;
  LayerRun& run_;
  bool keeps_experts_;
  AttentionOutput mid_;
  std::optional<Pending<Dispatched>> dispatch_;
  std::optional<Pending<at::Tensor>> combine_;
  at::Tensor shared_;  // [slice, hidden]
  at::Tensor output_;  // [slice, hidden], of experts that need no combine; or the loss
};

struct BackwardSettings {
  double d_aux = 0;                  // scales the auxiliary loss
  WeightGradQueue* later = nullptr;  // takes the weight gradients; null: they are computed at once
  TraceTarget trace = {};
};

// The same backwards: B as I, and W segment by segment. A layer of Keep::kAttention recomputes its
// experts; one of kInput or kRouting must have been run again with kAll.
class LayerBackward {
 public:
  LayerBackward(Layer& layer, const MicroBatch& micro_batch, const BackwardSettings& settings,
                LayerRun& run);

  // d_output [slice, hidden]; of the head, a scalar. Starts combine's backward.
  void start(const at::Tensor& d_output);
  void experts();  // input gradients of shared expert and experts; starts dispatch's backward
  void expert_weights();
  at::Tensor attention();  // waits for it; d_hidden, undefined without differentiable input
  void attention_weights();

 private:
  std::vector<at::Tensor> input_grads(SegmentRun& segment, const char* name,
                                      const std::vector<at::Tensor>& d_outputs);
  void weight_grads(SegmentRun& segment, const char* name);

  DecoderLayer* decoder_;
  const MicroBatch& micro_batch_;
  BackwardSettings settings_;
  LayerRun& run_;
  std::optional<LayerForward> again_;
  std::optional<Pending<at::Tensor>> combine_;
  std::optional<Pending<DispatchGrads>> dispatch_;
  at::Tensor d_output_;
  at::Tensor d_shared_;
  DispatchGrads grads_;
};

// All steps in a row. hidden [slice, hidden] -> [slice, hidden].
at::Tensor forward_layer(Layer& layer, const at::Tensor& hidden, const MicroBatch& micro_batch,
                         const ForwardSettings& settings, LayerRun& run);

}  // namespace moetron
