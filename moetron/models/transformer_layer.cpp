#include "moetron/models/transformer_layer.h"

#include <ATen/ATen.h>

#include "moetron/arch/tensors.h"
#include "moetron/autograd/adapter.h"
#include "moetron/base/error.h"
#include "moetron/nn/fp8_linear.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/norm.h"

namespace moetron {
namespace {

constexpr ParameterSettings kNormSettings{.init = Init::kOnes, .weight_decay = false};

// As it travels.
Value value_of(const Fp8Rows& rows) {
  return {.data = rows.values, .scales = scales_by_row(rows)};
}

}  // namespace

TransformerLayer::TransformerLayer(int64_t index, int64_t hidden_size, double norm_eps,
                                   const ModelSettings& settings, TransformerLayerParts parts)
    : index_(index),
      norm_eps_(norm_eps),
      input_norm_(layer_prefix(index) + tensors::kInputNorm.name, {hidden_size}, settings.options,
                  kNormSettings),
      post_attention_norm_(layer_prefix(index) + tensors::kPostAttentionNorm.name, {hidden_size},
                           settings.options, kNormSettings),
      parts_(std::move(parts)) {
  MT_CHECK((parts_.mlp == nullptr) != (parts_.moe == nullptr),
           "a layer has either a dense MLP or experts");
}

const LayerProgram& TransformerLayer::program() const {
  if (!parts_.moe) return dense_layer_program();
  return sparse_layer_program(parts_.moe->shared_expert.has_value());
}

std::vector<Value> TransformerLayer::compute(const Node& node, std::vector<Value> inputs,
                                             const NodeCall& call) {
  const at::Tensor& x = inputs[0].data;
  const TokenLayout& layout = call.micro_batch.layout;
  switch (node.role) {
    case NodeRole::kAttention:
      return attention(x, call);
    case NodeRole::kMlp:
      return {{.data = parts_.mlp->forward(x, layout, call.run)}};
    case NodeRole::kSharedExpert: {
      Mlp& expert = *parts_.moe->shared_expert;
      const at::Tensor& scales = inputs[0].scales;
      if (scales.defined())
        return {{.data = expert.forward(fp8_rows(x, scales), layout, call.run)}};
      at::Tensor y = expert.forward(x, layout, call.run);
      if (auto& gate = parts_.moe->shared_expert_gate) y = y * linear(x, *gate, call.run).sigmoid();
      return {{.data = std::move(y)}};
    }
    case NodeRole::kExperts:
      return {{.data = parts_.moe->experts.forward(inputs[0], inputs[1].data, call.run)}};
    default:
      throw InternalError("a decoder layer is asked for another layer's node");
  }
}

// -> residual, normed; of a layer with experts also routing and aux loss
std::vector<Value> TransformerLayer::attention(const at::Tensor& hidden, const NodeCall& call) {
  const MicroBatch& micro_batch = call.micro_batch;
  SegmentRun& run = call.run;
  AttentionCache* cache =
      micro_batch.cache == nullptr ? nullptr : &micro_batch.cache->layer(index_);
  const NormedSum input = add_and_norm(hidden, {}, input_norm_, norm_eps_, run);
  const at::Tensor mixed = parts_.attention->forward(
      input.y, remake_norm(input.sum, input_norm_, norm_eps_, run), micro_batch, cache, run);
  const NormedSum second = add_and_norm(input.sum, mixed, post_attention_norm_, norm_eps_, run);
  std::vector<Value> outputs = {{.data = second.sum}, {.data = second.y}};
  if (parts_.moe) {
    if (const auto& products = parts_.moe->travels_in) {
      const Fp8Rows rows = quantise_rows(second.y, products->values, run);
      outputs[1] = value_of(rows);
    }
    const bool counts = micro_batch.training && call.earlier == nullptr;
    RouterOutput routed =
        parts_.moe->router.forward(second.y, micro_batch, counts, call.earlier, run);
    outputs.push_back(Value::of(std::move(routed.routing)));
    outputs.push_back({.data = std::move(routed.aux_loss)});
  }
  return outputs;
}

Dispatcher* TransformerLayer::dispatcher() {
  return parts_.moe ? &parts_.moe->dispatcher : nullptr;
}

Value TransformerLayer::combine_grad(at::Tensor d) {
  const auto& products = parts_.moe->travels_in;
  if (!products) return {.data = std::move(d)};
  return value_of(quantise_rows(d, products->gradients));
}

void TransformerLayer::visit(const std::function<void(Parameter&)>& visitor) {
  const auto with_adapters = [&](Parameter& parameter) {
    visitor(parameter);
    for (const auto& adapter : parameter.adapters()) {
      visitor(adapter->a);
      visitor(adapter->b);
    }
  };
  visitor(input_norm_);
  parts_.attention->visit(with_adapters);
  visitor(post_attention_norm_);
  if (parts_.mlp) {
    parts_.mlp->visit(with_adapters);
    return;
  }
  parts_.moe->router.visit(visitor);
  parts_.moe->experts.visit(with_adapters);
  if (parts_.moe->shared_expert) parts_.moe->shared_expert->visit(with_adapters);
  if (parts_.moe->shared_expert_gate) visitor(*parts_.moe->shared_expert_gate);
}

}  // namespace moetron
