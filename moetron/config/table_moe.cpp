// Experts and their router.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_without_bias(const Options& options) {
  if (!options.checkpoint.load.empty()) return "";
  return options.moe.moe_router_deepseekv3.value_or(false)
             ? ""
             : "it acts with moe-router-deepseekv3 only";
}

std::string idle_beyond_deepseek(const Options& options) {
  const auto family = options.model.model_family;
  return !family || family == ModelFamily::kDeepseek ? "" : "it acts on the family deepseek only";
}

void declare_router(OptionTable& table) {
  table.add(MT_FIELD(moe, moe_router_deepseekv3),
            "The router of DeepSeek-V3: its own score function, balanced by a bias.");
  table.add(MT_FIELD(moe, moe_router_score_function), "Turns router logits into scores.")
      .one_of({{"softmax"}, {"sigmoid"}})
      .idle_when(idle_without_bias);
  table
      .add(MT_FIELD(moe, moe_router_enable_expert_bias),
           "Adds a bias per expert to the scores that choose experts, never to their weights.")
      .idle_when(idle_without_bias);
  table
      .add(MT_FIELD(moe, moe_router_bias_update_rate),
           "Added to (or taken from) the bias of an expert with too few (many) tokens, each step.")
      .at_least(0)
      .idle_when(idle_without_bias);
  table
      .add(MT_FIELD(moe, moe_router_topk_scaling_factor),
           "Multiplies the weights of the chosen experts.")
      .above(0)
      .idle_when(idle_beyond_deepseek);
  table.add(MT_FIELD(moe, moe_router_pre_softmax),
            "Softmax over all experts before choosing, weights not normalised afterwards.");
  table
      .add(MT_FIELD(moe, moe_router_num_groups),
           "Number of groups the experts are divided into for group-limited choice.")
      .count();
  table.add(MT_FIELD(moe, moe_router_group_topk), "Number of groups a token may choose from.")
      .count();
  table.add(MT_FIELD(moe, moe_router_load_balancing_type), "The loss that balances the experts.")
      .one_of({{"aux_loss"},
               {"seq_aux_loss"},
               {"none"},
               {"global_aux_loss", Standing::kNotYet, "balance over the global batch"},
               {"sinkhorn", Standing::kNotYet, "Sinkhorn routing"}});
  table.add(MT_FIELD(moe, moe_aux_loss_coeff), "Weight of the balance loss.").at_least(0);
  table
      .add_fieldless("moe-router-dtype", ValueKind::kChoice,
                     "Precision of logits and scores; always fp32.")
      .one_of({{"fp32"}, {"fp64", Standing::kNotYet, "a router in fp64"}});
  table.add_fieldless("moe-z-loss-coeff", ValueKind::kNumber, "Weight of the router's z-loss.")
      .only("0", "the router's z-loss");
  table
      .add_fieldless("moe-input-jitter-eps", ValueKind::kNumber,
                     "Relative noise on the router's input.")
      .only("0", "noise on the router's input");
  table
      .add_fieldless("moe-router-force-load-balancing", ValueKind::kFlag,
                     "Routes at random, for measurements.")
      .not_yet("forced balance");
}

}  // namespace

void declare_moe(OptionTable& table) {
  table.begin_group("moe", "Mixture of experts", {Command::kPretrain});
  table.add(MT_FIELD(moe, num_experts), "Number of routed experts of a layer.").count();
  table.add(MT_FIELD(moe, moe_router_topk), "Number of experts that a token is sent to.").count();
  table.add(MT_FIELD(moe, moe_ffn_hidden_size), "Inner width of an expert.").count();
  table.add(MT_FIELD(moe, enable_shared_expert), "Adds an expert that every token passes.");
  table
      .add(MT_FIELD(moe, num_shared_experts),
           "Width of the shared expert as a multiple of moe-ffn-hidden-size.")
      .count();
  table
      .add_fieldless("enable-shared-expert-gate", ValueKind::kFlag,
                     "Weighs the shared expert by a gate of its own.")
      .also("moe-shared-expert-gate")
      .not_yet("gated shared experts");
  table
      .add_fieldless("moe-shared-expert-intermediate-size", ValueKind::kInteger,
                     "Inner width of the shared expert; see num-shared-experts.")
      .not_yet("shared experts whose width is no multiple of an expert's");
  table.add(MT_FIELD(moe, first_k_dense_replace), "The first so many layers are dense.")
      .count_or_zero()
      .idle_when(idle_beyond_deepseek);
  table.add_fieldless("moe-layer-freq", ValueKind::kText, "Which layers have experts.")
      .not_yet("a free pattern of dense and expert layers");
  declare_router(table);
  const std::string local = "with one expert rank every kind is the same local permutation";
  table
      .add_fieldless("moe-token-dispatcher-type-patch", ValueKind::kChoice,
                     "How tokens travel to their experts and back.")
      .also("moe-token-dispatcher-type")
      .one_of({{"alltoall", Standing::kNoEffect, local},
               {"allgather", Standing::kNoEffect, local},
               {"allgather_fused", Standing::kNoEffect, local},
               {"overlap_allgather_fused", Standing::kNoEffect, local},
               {"overlap_deepep", Standing::kNoEffect, local},
               {"flex", Standing::kNotYet, "exchangeable dispatchers"}});
  const std::string grouped = "the experts of a rank are always computed as a group";
  table
      .add_fieldless("moe-grouped-gemm", ValueKind::kFlag,
                     "One grouped matrix product for all experts of a rank.")
      .no_effect(grouped);
  table
      .add_fieldless("moe-grouped-gemm-te", ValueKind::kFlag,
                     "Like moe-grouped-gemm, by another library.")
      .no_effect(grouped);
  table.add_fieldless("moe-permute-fusion", ValueKind::kFlag, "Fuses the permutation of tokens.")
      .no_effect("there is one permutation, the fastest");
  table
      .add_fieldless("force-drop-and-padding", ValueKind::kFlag,
                     "Gives every expert the same number of rows, by dropping and padding.")
      .not_yet("dropping tokens");
  table
      .add_fieldless("moe-expert-capacity-factor", ValueKind::kNumber,
                     "Rows of an expert as a multiple of the mean; the rest is dropped.")
      .not_yet("dropping tokens");
  table
      .add_fieldless("moe-pad-expert-input-to-capacity", ValueKind::kFlag,
                     "Pads every expert's rows to its capacity.")
      .not_yet("dropping tokens");
}

}  // namespace moetron
