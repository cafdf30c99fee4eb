// A decoder layer put together from parts: the attention and the feed-forward that a family gives
// it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "moetron/models/model_settings.h"
#include "moetron/moe/dispatchers.h"
#include "moetron/moe/experts.h"
#include "moetron/moe/router.h"
#include "moetron/nn/attention.h"
#include "moetron/nn/mlp.h"
#include "moetron/pipeline/layer.h"

namespace moetron {

// The routed part of a layer, the rank's dispatcher, and the shared expert where the family has
// one.
struct MixtureOfExperts {
  Router router;
  Experts experts;
  Dispatcher& dispatcher;
  std::optional<Mlp> shared_expert;
  std::optional<Parameter> shared_expert_gate = {};  // [1, hidden]
  // In which 8 bits tokens travel to the experts, and gradients back to them; empty: as they are.
  std::optional<Fp8Products> travels_in = {};
};

struct TransformerLayerParts {
  std::unique_ptr<Attention> attention;
  std::unique_ptr<Mlp> mlp;               // of a dense layer
  std::unique_ptr<MixtureOfExperts> moe;  // of any other
};

class TransformerLayer final : public Layer {
 public:
  TransformerLayer(int64_t index, int64_t hidden_size, double norm_eps,
                   const ModelSettings& settings, TransformerLayerParts parts);

  const LayerProgram& program() const override;
  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override;
  Dispatcher* dispatcher() override;
  Value combine_grad(at::Tensor d) override;
  void visit(const std::function<void(Parameter&)>& visitor) override;

  Router* router() { return parts_.moe ? &parts_.moe->router : nullptr; }

 private:
  std::vector<Value> attention(const at::Tensor& hidden, const NodeCall& call);

  int64_t index_;
  double norm_eps_;
  Parameter input_norm_;
  Parameter post_attention_norm_;
  TransformerLayerParts parts_;
};

}  // namespace moetron
