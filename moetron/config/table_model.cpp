// The model's shape, its rotary embedding and its latent attention. Sizes left out come from the
// config.json of --load.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_beyond_latent_attention(const Options& options) {
  const auto family = options.model.model_family;
  return !family || family == ModelFamily::kDeepseek ? "" : "it acts on the family deepseek only";
}

std::string idle_under_latents(const Options& options) {
  const ModelOptions& model = options.model;
  return model.kv_lora_rank || model.multi_latent_attention.value_or(false)
             ? "latent attention has widths of its own: qk-nope-head-dim and its like"
             : "";
}

std::string replication_at_one_rank(const Options& options) {
  if (!options.model.mla_replicate_l1) return "";
  const std::string reason = idle_beyond_latent_attention(options);
  if (!reason.empty()) return reason;
  return options.parallel.tensor_model_parallel_size > 1
             ? ""
             : "it acts with tensor-model-parallel-size above 1 only";
}

std::string idle_without_query_latents(const Options& options) {
  if (options.bench.benchmark != Benchmark::kStep) return "it acts with bench step only";
  if (options.bench.slice == BenchSlice::kQwen3235b) return "it acts on deepseek-v3 only";
  return idle_beyond_latent_attention(options);
}

std::string idle_for_single_kernels(const Options& options) {
  return options.bench.benchmark == Benchmark::kOps ? "bench ops measures single kernels" : "";
}

bool stretches_rotation(const Options& options) {
  return options.model.rotary_scaling_factor.value_or(1) != 1;
}

}  // namespace

void declare_model(OptionTable& table) {
  table.begin_group("model", "Model", {Command::kPretrain, Command::kSimulate});
  table.add(MT_FIELD(model, model_family), "The family whose layers and tensor names are built.")
      .ours()
      .one_of({{"deepseek", ModelFamily::kDeepseek},
               {"qwen", ModelFamily::kQwen},
               {"llama", ModelFamily::kLlama},
               {"llava", Standing::kNotYet, "vision towers"}});
  table.add(MT_FIELD(model, num_layers), "Number of decoder layers; of a bench, 4 without it.")
      .also("layers")
      .count()
      .idle_when(idle_for_single_kernels)
      .for_commands({Command::kPretrain, Command::kSimulate, Command::kBench});
  table.add(MT_FIELD(model, hidden_size), "Width of the residual stream.").count();
  table
      .add(MT_FIELD(model, ffn_hidden_size),
           "Inner width of a dense MLP; without it, as in Megatron, 8/3 of hidden-size in "
           "multiples of "
           "64.")
      .count();
  table.add(MT_FIELD(model, num_attention_heads), "Number of query heads.").count();
  table
      .add(MT_FIELD(model, group_query_attention),
           "Several query heads share one key and value head.")
      .megatron_takes("false", [](const Options& options) {
        return options.model.num_query_groups.has_value();
      });
  table
      .add(MT_FIELD(model, num_query_groups),
           "Number of key and value heads; without it, one per query head.")
      .count();
  table
      .add(MT_FIELD(model, kv_channels),
           "Width of a head; without it, hidden-size over num-attention-heads.")
      .count()
      .idle_when(idle_under_latents);
  table
      .add(MT_FIELD(model, max_position_embeddings), "The longest sequence the model is meant for.")
      .unit("tokens")
      .count();
  table.add(MT_FIELD(model, norm_epsilon), "Added to the mean square in a norm.")
      .also("layernorm-epsilon")
      .megatron_takes("1e-5")
      .above(0)
      .below(1);
  table.add_fieldless("normalization", ValueKind::kChoice, "The kind of norm; always RMSNorm.")
      .one_of(
          {Choice("RMSNorm"), {"LayerNorm", Standing::kNotYet, "layer norm with mean and bias"}})
      .megatron_takes("LayerNorm");
  table
      .add_fieldless("swiglu", ValueKind::kFlag,
                     "The MLPs are gated by SiLU; true of every family.")
      .only("true", "MLPs without a SiLU gate")
      .megatron_takes("false");
  table
      .add_fieldless("disable-bias-linear", ValueKind::kFlag,
                     "Linear layers have no bias; true of every family.")
      .only("true", "linear layers with a bias")
      .megatron_takes("false");
  table.add(MT_FIELD(model, add_qkv_bias),
            "The query, key and value projections have a bias, as Qwen2's.");
  table
      .add(MT_FIELD(model, qk_layernorm),
           "Norms queries and keys before their product, as Qwen3's; latent attention norms its "
           "latents in any case.")
      .megatron_takes(
          "false", [](const Options& options) { return options.model.kv_lora_rank.has_value(); });
  table.add(MT_FIELD(model, untie_embeddings_and_output_weights),
            "The output head has weights of its own instead of the embedding's.");
  table
      .add(MT_FIELD(model, init_method_std),
           "Standard deviation of the normal distribution that fresh weights are drawn from.")
      .above(0)
      .at_most(1);
  table
      .add(MT_FIELD(model, vocab_size),
           "Number of token ids without padding; without it, the tokenizer's.")
      .count();
  table.add(MT_FIELD(model, extra_vocab_size), "Rows of the vocabulary beyond the tokenizer's own.")
      .of_guide()
      .count_or_zero()
      .for_commands({Command::kPretrain, Command::kSimulate, Command::kPreprocess})
      .idle_when(idle_in_token_files);
  table
      .add_fieldless("make-vocab-size-divisible-by", ValueKind::kInteger,
                     "Pads the vocabulary in memory to a multiple of this.")
      .count()
      .no_effect(
          "the vocabulary is padded to a multiple of the tensor-parallel ranks, and files never "
          "hold any padding");
  table
      .add_fieldless("mtp-num-layers", ValueKind::kInteger,
                     "Number of layers that predict further tokens ahead.")
      .only("0", "multi-token prediction");
}

void declare_rotary_and_mla(OptionTable& table) {
  table
      .add_fieldless("position-embedding-type", ValueKind::kChoice,
                     "How positions enter the model; always rotary embeddings.")
      .one_of({Choice("rope"),
               {"learned_absolute", Standing::kNotYet, "learned positions"},
               {"none", Standing::kNotYet, "models without positions"}})
      .also("use-rotary-position-embeddings", "rope")
      .megatron_takes("learned_absolute");
  table
      .add_fieldless("rotary-percent", ValueKind::kNumber,
                     "Share of a head's width that is rotated; always all of it.")
      .only("1", "heads that are rotated in part");
  table
      .add_fieldless("rotary-seq-len-interpolation-factor", ValueKind::kNumber,
                     "Divides the positions (linear interpolation).")
      .only("1", "linear interpolation of positions");
  table.add(MT_FIELD(model, rotary_base), "Base of the rotation's wavelengths.").above(1);
  table
      .add(MT_FIELD(model, rotary_scaling_factor),
           "YaRN: how many times longer than the original the context is; switches YaRN on.")
      .at_least(1);
  table.add(MT_FIELD(model, rotary_mscale), "YaRN: factor of the rotation's magnitude.")
      .also("mscale")
      .at_least(0);
  table
      .add(MT_FIELD(model, rotary_mscale_all_dim),
           "YaRN: factor of the attention logits' magnitude.")
      .also("mscale-all-dim")
      .at_least(0);
  table
      .add(MT_FIELD(model, original_max_position_embeddings),
           "YaRN: the context before it was stretched.")
      .megatron_takes("4096", stretches_rotation)
      .unit("tokens")
      .count();
  table
      .add(MT_FIELD(model, rotary_beta_fast),
           "YaRN: above this many turns over the original context, a wavelength is kept.")
      .also("beta-fast")
      .above(0);
  table
      .add(MT_FIELD(model, rotary_beta_slow),
           "YaRN: below this many turns over the original context, a wavelength is stretched.")
      .also("beta-slow")
      .above(0);

  table.add(MT_FIELD(model, multi_latent_attention),
            "Multi-head latent attention; implied by kv-lora-rank.");
  table
      .add(MT_FIELD(model, q_lora_rank),
           "MLA: width of the queries' latent; without it, queries are projected directly.")
      .count();
  table.add(MT_FIELD(model, kv_lora_rank), "MLA: width of the latent of keys and values.")
      .count()
      .megatron_takes("32", [](const Options& options) {
        return options.model.multi_latent_attention.value_or(false);
      });
  table
      .add(MT_FIELD(model, qk_rope_head_dim),
           "MLA: width of the rotated part of a query or key head.")
      .also("qk-pos-emb-head-dim")
      .count();
  table
      .add(MT_FIELD(model, qk_nope_head_dim),
           "MLA: width of the part of a query or key head that is not rotated.")
      .also("qk-head-dim")
      .count();
  table.add(MT_FIELD(model, v_head_dim), "MLA: width of a value head.").count();
  table
      .add(MT_FIELD(model, mla_replicate_l1),
           "MLA: keeps the down projections whole on every tensor-parallel rank and splits the up "
           "projections only, which saves a gather; off: both are split.")
      .of_guide()
      .idle_when(replication_at_one_rank);
  table
      .add(MT_FIELD(model, mla_fuse_qkv),
           "MLA: one down projection for queries, keys and values, and norms in front of it and "
           "behind it that the backward computes again instead of keeping; needs q-lora-rank. A "
           "bench always has the one projection.")
      .of_guide()
      .for_commands({Command::kPretrain, Command::kSimulate, Command::kBench})
      .idle_when(idle_without_query_latents);
}

}  // namespace moetron
