// Experts and their router.
#include <algorithm>
#include <iterator>

#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_without_bias(const Options& options) {
  if (!options.checkpoint.load.empty()) return "";
  return options.moe.moe_router_deepseekv3.value_or(false)
             ? ""
             : "it acts with moe-router-deepseekv3 only";
}

std::string idle_without_softmax(const Options& options) {
  return options.moe.moe_router_deepseekv3.value_or(false)
             ? "moe-router-deepseekv3 takes no softmax"
             : "";
}

bool has_experts(const Options& options) {
  return options.moe.num_experts.has_value();
}

bool has_latents(const Options& options) {
  return options.model.kv_lora_rank || options.model.multi_latent_attention.value_or(false) ||
         options.model.model_family == ModelFamily::kDeepseek;
}

bool has_sigmoid(const Options& options) {
  return options.moe.moe_router_score_function == RouterScoreFunction::kSigmoid;
}

// What DeepSeek-V3's router is made of in Megatron, which has no name for the whole.
bool is_v3_in_megatron(const Options& options) {
  return has_latents(options) && has_sigmoid(options) &&
         options.moe.moe_router_enable_expert_bias.value_or(false);
}

bool is_without_v3(const Options& options) {
  return !options.moe.moe_router_deepseekv3.value_or(false);
}

// DeepSeek-V2's router, whose softmax comes first here.
bool is_v2_in_megatron(const Options& options) {
  return has_experts(options) && has_latents(options) && is_without_v3(options) &&
         !has_sigmoid(options);
}

constexpr const char* kWithV3Alone =
    "Here it acts with moe-router-deepseekv3 only, as in the guide; Megatron's acts on every "
    "router.";

std::string idle_beyond_deepseek(const Options& options) {
  const auto family = options.model.model_family;
  return !family || family == ModelFamily::kDeepseek ? "" : "it acts on the family deepseek only";
}

void declare_router(OptionTable& table) {
  table
      .add(MT_FIELD(moe, moe_router_deepseekv3),
           "The router of DeepSeek-V3: its own score function, balanced by a bias.")
      .of_guide()
      .megatron_takes("true", is_v3_in_megatron);
  table.add(MT_FIELD(moe, moe_router_score_function), "Turns router logits into scores.")
      .one_of(
          {{"softmax", RouterScoreFunction::kSoftmax}, {"sigmoid", RouterScoreFunction::kSigmoid}})
      .differs(kWithV3Alone, is_without_v3)
      .idle_when(idle_without_bias);
  table
      .add(MT_FIELD(moe, moe_router_enable_expert_bias),
           "Adds a bias per expert to the scores that choose experts, never to their weights.")
      .differs(kWithV3Alone, is_without_v3)
      .idle_when(idle_without_bias);
  table
      .add(MT_FIELD(moe, moe_router_bias_update_rate),
           "Added to (or taken from) the bias of an expert with too few (many) tokens, each step.")
      .differs(kWithV3Alone, is_without_v3)
      .at_least(0)
      .idle_when(idle_without_bias)
      .deciding_training();
  table
      .add(MT_FIELD(moe, moe_router_topk_scaling_factor),
           "Multiplies the weights of the chosen experts.")
      .above(0)
      .differs(
          "Here it acts on DeepSeek's routers only, as in the guide; Megatron's acts on every one.",
          [](const Options& options) { return !has_latents(options); })
      .idle_when(idle_beyond_deepseek);
  table
      .add(MT_FIELD(moe, moe_router_pre_softmax),
           "Softmax over all experts before choosing, weights not normalised afterwards.")
      .megatron_takes("false", is_v2_in_megatron)
      .idle_when(idle_without_softmax);
  table
      .add(MT_FIELD(moe, moe_router_num_groups),
           "Number of groups the experts are divided into for group-limited choice.")
      .count();
  table.add(MT_FIELD(moe, moe_router_group_topk), "Number of groups a token may choose from.")
      .count();
  table.add(MT_FIELD(moe, moe_router_load_balancing_type), "The loss that balances the experts.")
      .one_of({{"aux_loss", LoadBalancing::kAuxLoss},
               {"seq_aux_loss", LoadBalancing::kSeqAuxLoss},
               {"none", LoadBalancing::kNone},
               {"global_aux_loss", Standing::kNotYet, "balance over the global batch"},
               {"sinkhorn", Standing::kNotYet, "Sinkhorn routing"}})
      .deciding_training();
  table.add(MT_FIELD(moe, moe_aux_loss_coeff), "Weight of the aux loss.")
      .at_least(0)
      .deciding_training();
  table
      .add_fieldless("moe-router-dtype", ValueKind::kChoice,
                     "Precision of the scores; always fp32. Logits are what the family has: "
                     "DeepSeek's are fp32, "
                     "Qwen's of the activations' type.")
      .one_of({Choice("fp32"), {"fp64", Standing::kNotYet, "a router in fp64"}});
  table.add_fieldless("moe-z-loss-coeff", ValueKind::kNumber, "Weight of the router's z-loss.")
      .only("0", "the router's z-loss");
  table
      .add_fieldless("moe-input-jitter-eps", ValueKind::kNumber,
                     "Relative noise on the router's input.")
      .only("0", "noise on the router's input");
  table
      .add(MT_FIELD(moe, moe_router_force_load_balancing),
           "Routes at random, so that experts get nearly as many tokens each: for measurements.")
      .deciding_training();
}

std::string idle_at_one_expert_rank(const Options& options) {
  const ParallelOptions& parallel = options.parallel;
  const bool is_one =
      parallel.expert_model_parallel_size == 1 && parallel.tensor_model_parallel_for_expert == 1;
  return is_one ? "with one expert rank every kind is the same local permutation" : "";
}

std::string remark_on_overlap(const Options& options) {
  const TokenDispatcher kind = options.moe.moe_token_dispatcher_type;
  const bool overlaps = kind == TokenDispatcher::kOverlapAllGatherFused ||
                        kind == TokenDispatcher::kOverlapAllToAll ||
                        kind == TokenDispatcher::kOverlapDeepep;
  const auto has_blocks = [&](const NamedSchedule& known) {
    return known.kind == options.parallel.scheduler && known.has_blocks;
  };
  if (!overlaps || std::any_of(std::begin(kSchedules), std::end(kSchedules), has_blocks)) return "";
  return "only dualpipev and dualpipev+ have blocks; under another schedule the shared expert "
         "alone "
         "runs beside the communication";
}

std::string idle_without_capacity(const Options& options) {
  const bool drops =
      options.moe.force_drop_and_padding || options.moe.moe_expert_capacity_factor.has_value();
  return drops ? "" : "without a capacity no token is dropped";
}

std::vector<Choice> dispatcher_choices() {
  std::vector<Choice> choices;
  for (const auto& [name, kind, scheme] : kDispatchers) choices.emplace_back(name, kind);
  choices.emplace_back("flex", TokenDispatcher::kDeepep);
  return choices;
}

void declare_dispatch(OptionTable& table) {
  table
      .add(MT_FIELD(moe, moe_token_dispatcher_type),
           "How tokens travel to their experts and back: every token to every rank (allgather, "
           "allgather_fused), a row per chosen expert (alltoall), or a row per rank with a chosen "
           "expert (deepep, flex); the overlap kinds are the same under a schedule with blocks.")
      .differs(
          "flex and deepep are an all-to-all of Moetron's own that sends a token once to a "
          "rank; the DeepEP library is not used.",
          [](const Options& options) {
            return options.moe.moe_token_dispatcher_type == TokenDispatcher::kDeepep;
          })
      .also("moe-token-dispatcher-type-patch")
      .also("moe-enable-deepep", "deepep")
      .one_of(dispatcher_choices())
      .idle_when(idle_at_one_expert_rank)
      .remark_when(remark_on_overlap);
  table
      .add(MT_FIELD(moe, moe_grouped_gemm),
           "One grouped matrix product for all experts of a rank, where the device has one, but "
           "with no- one expert after the other; the results are the same. Of convert, whether "
           "Megatron's files have the names of one, which they have not without it.")
      .also("moe-grouped-gemm-te")
      .for_commands({Command::kPretrain, Command::kSimulate, Command::kConvert});
}

void declare_capacity(OptionTable& table) {
  table
      .add(MT_FIELD(moe, force_drop_and_padding),
           "Gives every expert the same number of rows, by dropping and padding: "
           "moe-expert-capacity-factor 1 unless given, and moe-pad-expert-input-to-capacity.")
      .of_guide()
      .deciding_training();
  table
      .add(MT_FIELD(moe, moe_expert_capacity_factor),
           "Rows of an expert as a multiple of the mean over the experts; what is beyond is "
           "dropped, and without it nothing is.")
      .above(0)
      .deciding_training();
  table
      .add(MT_FIELD(moe, moe_pad_expert_input_to_capacity),
           "Pads every expert's rows to its capacity.")
      .deciding_training();
  table
      .add(MT_FIELD(moe, moe_token_drop_policy),
           "Which rows are dropped beyond the capacity: those of least probability (probs), or "
           "the last of the micro-batch (position).")
      .one_of({{"probs", TokenDropPolicy::kProbs}, {"position", TokenDropPolicy::kPosition}})
      .idle_when(idle_without_capacity)
      .deciding_training();
}

}  // namespace

void declare_moe(OptionTable& table) {
  table.begin_group("moe", "Mixture of experts", {Command::kPretrain, Command::kSimulate});
  table.add(MT_FIELD(moe, num_experts), "Number of routed experts of a layer.").count();
  table.add(MT_FIELD(moe, moe_router_topk), "Number of experts that a token is sent to.")
      .count()
      .megatron_takes("2", has_experts);
  table.add(MT_FIELD(moe, moe_ffn_hidden_size), "Inner width of an expert.")
      .count()
      .megatron_takes_that_of("ffn-hidden-size", has_experts);
  table.add(MT_FIELD(moe, enable_shared_expert), "Adds an expert that every token passes.")
      .of_guide();
  table
      .add(MT_FIELD(moe, num_shared_experts),
           "Width of the shared expert as a multiple of moe-ffn-hidden-size.")
      .of_guide()
      .count();
  table
      .add(MT_FIELD(moe, enable_shared_expert_gate),
           "Multiplies the shared expert's output by a gate of its own, as Qwen2-MoE does.")
      .of_guide()
      .also("moe-shared-expert-gate");
  table
      .add(MT_FIELD(moe, moe_shared_expert_intermediate_size),
           "Inner width of the shared expert, instead of num-shared-experts: a multiple of "
           "moe-ffn-hidden-size.")
      .count();
  table.add(MT_FIELD(moe, first_k_dense_replace), "The first so many layers are dense.")
      .of_guide()
      .count_or_zero()
      .idle_when(idle_beyond_deepseek);
  table.add(MT_FIELD(moe, moe_layer_freq),
            "Which layers have experts, instead of first-k-dense-replace: 1, all of them, or a "
            "pattern like ([0]*3+[1]*58), whose dense layers come first.");
  declare_router(table);
  declare_dispatch(table);
  declare_capacity(table);
}

}  // namespace moetron
