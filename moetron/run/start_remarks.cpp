#include "moetron/run/start_remarks.h"

#include "moetron/arch/families.h"
#include "moetron/base/error.h"
#include "moetron/config/options.h"

namespace moetron {
namespace {

class List {
 public:
  void add_if(bool condition, const std::string& item) {
    if (condition) text_ += (text_.empty() ? "" : ", ") + item;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

void list_router(const MoeOptions& given, const MoeConfig& moe, List& list) {
  const bool asks_for_v3 = given.moe_router_deepseekv3.value_or(false);  // and what belongs to it
  list.add_if(moe.norm_topk_prob && !given.moe_router_pre_softmax && !asks_for_v3,
              "weights of the chosen experts that sum to 1");
  list.add_if(moe.expert_bias && !given.moe_router_enable_expert_bias && !asks_for_v3,
              concat("a balancing bias of the router, moved by ", moe.bias_update_rate, " a step"));
  list.add_if(moe.routed_scaling_factor != 1 && !given.moe_router_topk_scaling_factor,
              concat("routed experts scaled by ", moe.routed_scaling_factor));
  const bool is_own = !given.moe_aux_loss_coeff && !given.moe_router_load_balancing_type;
  list.add_if(moe.aux_loss != AuxLossKind::kNone && is_own,
              concat("an aux loss of weight ", moe.aux_loss_coeff,
                     moe.aux_loss == AuxLossKind::kSequence ? " for each sequence"
                                                            : " for each micro-batch"));
}

std::string own_choices(const Options& options, const ModelConfig& model) {
  List list;
  list.add_if(model.qk_norm && !options.model.qk_layernorm, "a norm of queries and keys");
  list.add_if(model.attention_bias && !options.model.add_qkv_bias,
              "a bias of queries, keys and values");
  const bool has_dense_layers = model.num_moe_layers() < model.num_layers;
  list.add_if(has_dense_layers && options.checkpoint.load.empty() && !options.model.ffn_hidden_size,
              concat("dense MLPs of width ", model.intermediate_size));
  list.add_if(model.rope.type != RopeType::kDefault && !options.model.rotary_scaling_factor,
              concat("rotary embeddings scaled by ", model.rope.factor));
  if (model.moe) list_router(options.moe, *model.moe, list);
  return list.text();
}

std::string own_model_type(const ModelConfig& model) {
  const auto has = [](bool value) { return value ? "with" : "without"; };
  return concat("transformers has no class for ", model.moe ? "experts" : "dense MLPs",
                " behind attention ", has(model.qk_norm), " qk-layernorm and ",
                has(model.attention_bias),
                " add-qkv-bias: config.json says model_type moetron, which only moetron loads");
}

// What was asked for of experts that the model does not have.
std::string idle_without_experts(const Options& options) {
  const MoeOptions& moe = options.moe;
  List list;
  list.add_if(options.memory.moe_layer_recompute, "moe-layer-recompute");
  list.add_if(options.memory.mlp_recompute, "mlp-recompute");
  list.add_if(moe.moe_grouped_gemm.value_or(false), "moe-grouped-gemm");
  list.add_if(moe.moe_expert_capacity_factor.has_value(), "moe-expert-capacity-factor");
  list.add_if(moe.force_drop_and_padding, "force-drop-and-padding");
  list.add_if(moe.moe_router_force_load_balancing, "moe-router-force-load-balancing");
  list.add_if(moe.moe_aux_loss_coeff.has_value(), "moe-aux-loss-coeff");
  list.add_if(moe.moe_router_load_balancing_type.has_value(), "moe-router-load-balancing-type");
  list.add_if(moe.moe_router_pre_softmax.value_or(false), "moe-router-pre-softmax");
  return list.text();
}

}  // namespace

std::vector<std::string> start_remarks(const Options& options, const RunSpec& spec) {
  std::vector<std::string> remarks;
  const ModelConfig& model = spec.model;
  const std::string own = own_choices(options, model);
  if (!own.empty()) {
    remarks.push_back(concat(traits_of(model.family).model_type, " sets by itself: ", own));
  }
  if (spec.fp8) {
    remarks.push_back(concat("decoder layers [", spec.fp8->first_layer, ", ", spec.fp8->end_layer,
                             ") multiply in 8 bits (E4M3",
                             spec.fp8->gradients_in_e5m2 ? ", gradients E5M2" : "",
                             "; a scale for each 128 numbers; weight gradients in ",
                             spec.fp8->weight_grad ? "8 bits, too" : "the activations' type", ")"));
  }
  if (model.mla && options.model.qk_layernorm)
    remarks.emplace_back(
        "no effect here: qk-layernorm (latent attention norms its latents in any case)");
  if (model.family == ModelConfig::Family::kMoetron) remarks.push_back(own_model_type(model));
  if (model.num_moe_layers() == 0) {
    const std::string idle = idle_without_experts(options);
    if (!idle.empty())
      remarks.push_back(concat("no effect here: ", idle, " (the model has no experts)"));
    return remarks;
  }
  if (model.moe->top_k == 1 && model.moe->norm_topk_prob) {
    remarks.push_back(concat(
        "moe-router-topk (1): the weight of a token's one expert is normalised to 1, so that the "
        "router gets no gradient from the loss of the text",
        model.moe->aux_loss == AuxLossKind::kNone ? ", and learns nothing" : ""));
  }
  if (spec.sizes.tp > 1 && spec.sizes.tpe == 1) {
    remarks.push_back(
        concat("tensor-model-parallel-for-expert (1): every expert is whole on one "
               "rank; Megatron's expert-tensor-parallel-size would be that of "
               "tensor-model-parallel-size (",
               spec.sizes.tp, ") unless it is given"));
  }
  return remarks;
}

}  // namespace moetron
