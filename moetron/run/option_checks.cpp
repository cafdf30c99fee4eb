#include "moetron/run/option_checks.h"

#include <cmath>
#include <numeric>

#include "moetron/base/flag_text.h"
#include "moetron/run/division.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

// "name (a) must be at most other (b)", where both are given.
template <class T>
void check_at_most(const char* name, std::optional<T> value, const char* other,
                   std::optional<T> bound, Mistakes& mistakes) {
  if (!value || !bound) return;
  mistakes.check(*value <= *bound, name, " (", *value, ") must be at most ", other, " (", *bound,
                 ")");
}

void check_query_groups(const Options& options, Mistakes& mistakes) {
  const ModelOptions& model = options.model;
  check_multiple("num-attention-heads", model.num_attention_heads, "num-query-groups",
                 model.num_query_groups, mistakes);
  if (!model.group_query_attention || !options.checkpoint.load.empty()) return;
  mistakes.check(!*model.group_query_attention || model.num_query_groups,
                 "group-query-attention needs num-query-groups");
  mistakes.check(*model.group_query_attention || !model.num_query_groups ||
                     model.num_query_groups == model.num_attention_heads,
                 "num-query-groups (", model.num_query_groups.value_or(0),
                 ") contradicts group-query-attention (false)");
}

void check_experts(const Options& options, Mistakes& mistakes) {
  const MoeOptions& moe = options.moe;
  check_at_most("moe-router-topk", moe.moe_router_topk, "num-experts", moe.num_experts, mistakes);
  check_at_most("first-k-dense-replace", moe.first_k_dense_replace, "num-layers",
                options.model.num_layers, mistakes);
  check_multiple("num-experts", moe.num_experts, "moe-router-num-groups", moe.moe_router_num_groups,
                 mistakes);
  check_at_most("moe-router-group-topk", moe.moe_router_group_topk, "moe-router-num-groups",
                moe.moe_router_num_groups, mistakes);
}

void check_tokenizer(const TokenizerOptions& options, Mistakes& mistakes) {
  mistakes.check(options.tokenizer != TokenizerKind::kBytes || options.tokenizer_model.empty(),
                 "tokenizer (bytes) and tokenizer-model (", options.tokenizer_model,
                 ") contradict each other");
}

}  // namespace

void check_model_options(const Options& options, Mistakes& mistakes) {
  const ModelOptions& model = options.model;
  const bool is_fresh = options.checkpoint.load.empty();
  check_query_groups(options, mistakes);
  check_at_most("rotary-beta-slow", model.rotary_beta_slow, "rotary-beta-fast",
                model.rotary_beta_fast, mistakes);
  mistakes.check(!model.multi_latent_attention.value_or(false) || model.kv_lora_rank || !is_fresh,
                 "multi-latent-attention needs kv-lora-rank");
  mistakes.check(!model.mla_fuse_qkv || model.q_lora_rank || !is_fresh,
                 "mla-fuse-qkv (true) needs q-lora-rank, which is not given");
  check_experts(options, mistakes);
}

void check_training_needs(const Options& options, Mistakes& mistakes) {
  const bool is_fresh = options.checkpoint.load.empty();
  mistakes.check(options.model.model_family || !is_fresh,
                 "pretrain needs model-family, or load with a config.json");
  mistakes.check(options.model.vocab_size || !options.tokenizer.tokenizer_model.empty() ||
                     options.tokenizer.tokenizer == TokenizerKind::kBytes || !is_fresh,
                 "pretrain needs vocab-size, tokenizer-model, or load with a config.json");
  const DataOptions& data = options.data;
  mistakes.check(!data.mock_data || data.data_path.empty(), "mock-data and data-path (",
                 data.data_path.empty() ? "" : data.data_path[0],
                 ") contradict each other: give one of them");
}

void check_combinations(const Options& options, Mistakes& mistakes) {
  check_tokenizer(options.tokenizer, mistakes);
  const int64_t tensor = options.parallel.tensor_model_parallel_size;
  mistakes.check(tensor == 1 || options.parallel.sequence_parallel.value_or(true),
                 "sequence-parallel (false) contradicts tensor-model-parallel-size (", tensor,
                 "): several tensor-parallel ranks always divide the sequence");
  const MoeOptions& moe = options.moe;
  mistakes.check(!moe.moe_pad_expert_input_to_capacity || moe.moe_expert_capacity_factor ||
                     moe.force_drop_and_padding,
                 "moe-pad-expert-input-to-capacity (true) needs a capacity: "
                 "moe-expert-capacity-factor or force-drop-and-padding");
  const PrecisionOptions& precision = options.precision;
  mistakes.check(
      !precision.moe_fp8_dispatch.value_or(false) || precision.fp8_wgrad == Fp8WeightGrad::kFp8,
      "moe-fp8-dispatch (true) needs fp8-wgrad (bf16) to be fp8: its weight gradients "
      "want the tokens as they are");
  const OptimizerOptions& optimizer = options.optimizer;
  mistakes.check(!optimizer.overlap_param_gather ||
                     (optimizer.use_distributed_optimizer && optimizer.overlap_grad_reduce),
                 "overlap-param-gather (true) needs use-distributed-optimizer (",
                 flag_text(optimizer.use_distributed_optimizer), ") and overlap-grad-reduce (",
                 flag_text(optimizer.overlap_grad_reduce), ") to be true");
  mistakes.check(options.checkpoint.load_layers.empty() || !options.checkpoint.load.empty(),
                 "load-layers (", options.checkpoint.load_layers,
                 ") needs load: the model that they are of");
  mistakes.check(
      options.checkpoint.load_layers.empty() || options.tuning.lora_rank == 0, "load-layers (",
      options.checkpoint.load_layers, ") does not go with lora-rank (", options.tuning.lora_rank,
      "), whose updates name a whole model: make one with moetron convert --load-layers");
  mistakes.check(options.runtime.distributed_backend != DistributedBackend::kNccl ||
                     options.runtime.device != DeviceKind::kCpu,
                 "distributed-backend (nccl) needs device (cpu) to be cuda");
  mistakes.check(!options.runtime.dry_run || !options.runtime.check_layout,
                 "dry-run (true) and check-layout (true) each take the place of the run: give one");
}

namespace {

// As in Megatron a run counts in steps or in samples.
void check_counting(const Options& options, Mistakes& mistakes) {
  const OptimizerOptions& optimizer = options.optimizer;
  if (const auto samples = options.training.train_samples) {
    mistakes.check(
        !optimizer.lr_decay_iters && optimizer.lr_warmup_iters == 0, "train-samples (", *samples,
        ") goes with lr-decay-samples and lr-warmup-samples, not with lr-decay-iters and "
        "lr-warmup-iters");
  } else {
    mistakes.check(!optimizer.lr_decay_samples && optimizer.lr_warmup_samples == 0,
                   "lr-decay-samples and lr-warmup-samples go with train-samples, not with "
                   "train-iters");
  }
  const auto fraction = optimizer.lr_warmup_fraction;
  mistakes.check(!fraction || (optimizer.lr_warmup_iters == 0 && optimizer.lr_warmup_samples == 0),
                 "lr-warmup-fraction (", fraction.value_or(0),
                 ") says how long the warm-up is: give neither lr-warmup-iters nor "
                 "lr-warmup-samples beside it");
  mistakes.check(fraction.value_or(0) < 1, "lr-warmup-fraction (", fraction.value_or(0),
                 ") leaves no step to decay in");
}

}  // namespace

void check_learning_rate(const Options& options, Mistakes& mistakes) {
  const OptimizerOptions& optimizer = options.optimizer;
  mistakes.check(optimizer.lr > 0, "lr (", optimizer.lr, ") must be above 0");
  check_at_most("min-lr", std::optional(optimizer.min_lr), "lr", std::optional(optimizer.lr),
                mistakes);
  mistakes.check(optimizer.lr_warmup_init <= optimizer.lr, "lr-warmup-init (",
                 optimizer.lr_warmup_init, ") must be at most lr (", optimizer.lr, ")");
  check_counting(options, mistakes);
  const bool in_samples = options.training.train_samples.has_value();
  const int64_t decay = in_samples
                            ? optimizer.lr_decay_samples.value_or(*options.training.train_samples)
                            : optimizer.lr_decay_iters.value_or(options.training.train_iters);
  const bool is_given =
      in_samples ? optimizer.lr_decay_samples.has_value() : optimizer.lr_decay_iters.has_value();
  const char* name = in_samples ? (is_given ? "lr-decay-samples" : "train-samples")
                                : (is_given ? "lr-decay-iters" : "train-iters");
  const int64_t warmup = in_samples ? optimizer.lr_warmup_samples : optimizer.lr_warmup_iters;
  mistakes.check(decay < 1 || warmup < decay,
                 in_samples ? "lr-warmup-samples (" : "lr-warmup-iters (", warmup,
                 ") must be smaller than ", name, " (", decay, ")");
}

void check_split(const std::vector<double>& split, Mistakes& mistakes) {
  mistakes.check(split.size() <= 3, "split takes at most 3 shares, not ", split.size());
  const double sum = std::accumulate(split.begin(), split.end(), 0.0);
  if (mistakes.check(sum > 0 && std::isfinite(sum), "split must have a share above 0"))
    mistakes.check(split[0] > 0, "split (", split[0], ", ...) leaves nothing to train on");
}

void check_preprocess(const Options& options, Mistakes& mistakes) {
  const std::optional<RecordLayout> from = options.preprocess.from;
  if (from && *from != RecordLayout::kWudao) return;  // conversations stay text
  mistakes.check(options.tokenizer.tokenizer == TokenizerKind::kBytes ||
                     !options.tokenizer.tokenizer_model.empty(),
                 "preprocess needs tokenizer-model, or tokenizer bytes");
  check_tokenizer(options.tokenizer, mistakes);
}

void check_generate(const Options& options, Mistakes& mistakes) {
  const GenerateOptions& given = options.generate;
  mistakes.check(!options.checkpoint.load.empty(), "generate needs load");
  const int num_inputs =
      !given.prompt.empty() + !given.prompt_file.empty() + !given.messages.empty();
  mistakes.check(num_inputs == 1, "generate needs one of prompt, prompt-file and messages");
  check_tokenizer(options.tokenizer, mistakes);
}

void check_chat(const Options& options, Mistakes& mistakes) {
  mistakes.check(!options.checkpoint.load.empty(), "chat needs load");
  check_tokenizer(options.tokenizer, mistakes);
}

void check_convert(const Options& options, Mistakes& mistakes) {
  mistakes.check(!options.checkpoint.load.empty(), "convert needs load");
  mistakes.check(!options.checkpoint.save.empty(), "convert needs save");
  mistakes.check(options.convert.merge_adapter.empty() ||
                     options.convert.from.value_or(ModelFormat::kHf) == ModelFormat::kHf,
                 "merge-adapter (", options.convert.merge_adapter,
                 ") goes with Hugging Face model directories, not with from (",
                 options.convert.from == ModelFormat::kTorchDist ? "torch-dist" : "megatron", ")");
  mistakes.check(options.checkpoint.load_layers.empty() || options.convert.merge_adapter.empty(),
                 "load-layers (", options.checkpoint.load_layers,
                 ") does not go with merge-adapter (", options.convert.merge_adapter,
                 "), whose updates are those of all layers: merge first");
  mistakes.collect([&] { resolve_start(options); });
}

void check_compare(const Options& options, Mistakes& mistakes) {
  const size_t num_models = options.compare.models.size();
  mistakes.check(num_models == 2, "compare compares 2 models, not ", num_models);
}

void check_curves(const Options& options, Command command, Mistakes& mistakes) {
  const size_t num_runs = options.curves.runs.size(), num_labels = options.curves.labels.size();
  mistakes.check(command != Command::kCompareLoss || num_runs == 2,
                 "compare-loss compares 2 runs, not ", num_runs);
  mistakes.check(num_labels == 0 || num_labels == num_runs, "labels (", num_labels,
                 ") must be as many as runs (", num_runs, ")");
}

// With unit costs nothing is known of a model but its pipeline.
void check_simulate(const Options& options, Mistakes& mistakes) {
  const SimulateOptions& simulate = options.simulate;
  if (simulate.cost == SimulatedCosts::kUnit) {
    mistakes.check(simulate.num_micro_batches.has_value(), "simulate needs num-micro-batches");
    return;
  }
  mistakes.check(options.runtime.world_size.has_value(),
                 "simulate with cost model needs world-size");
  const TrainingOptions& training = options.training;
  mistakes.check(training.seq_length >= 1 && training.micro_batch_size >= 1,
                 "simulate with cost model needs seq-length and micro-batch-size");
  mistakes.check(simulate.num_micro_batches || training.global_batch_size >= 1,
                 "simulate with cost model needs global-batch-size or num-micro-batches");
}

}  // namespace moetron
