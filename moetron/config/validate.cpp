#include "moetron/config/validate.h"

#include <cmath>
#include <numeric>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// "name (a) must be a multiple of other (b)", where both are given.
void check_multiple(const char* name, std::optional<int64_t> value, const char* other,
                    std::optional<int64_t> divisor) {
  if (!value || !divisor) return;
  MT_CHECK_CONFIG(*divisor >= 1, other, " (", *divisor, ") must be at least 1");
  MT_CHECK_CONFIG(*value % *divisor == 0, name, " (", *value, ") must be a multiple of ", other,
                  " (", *divisor, ")");
}

// "name (a) must be at most other (b)", where both are given.
template <class T>
void check_at_most(const char* name, std::optional<T> value, const char* other,
                   std::optional<T> bound) {
  if (!value || !bound) return;
  MT_CHECK_CONFIG(*value <= *bound, name, " (", *value, ") must be at most ", other, " (", *bound,
                  ")");
}

void check_model(const Options& options) {
  const ModelOptions& model = options.model;
  MT_CHECK_CONFIG(model.model_family || !options.checkpoint.load.empty(),
                  "pretrain needs model-family, or load with a config.json");
  MT_CHECK_CONFIG(model.vocab_size || !options.tokenizer.tokenizer_model.empty() ||
                      options.tokenizer.tokenizer == TokenizerKind::kBytes ||
                      !options.checkpoint.load.empty(),
                  "pretrain needs vocab-size, tokenizer-model, or load with a config.json");
  check_multiple("num-attention-heads", model.num_attention_heads, "num-query-groups",
                 model.num_query_groups);
  if (model.group_query_attention && options.checkpoint.load.empty()) {
    MT_CHECK_CONFIG(!*model.group_query_attention || model.num_query_groups,
                    "group-query-attention needs num-query-groups");
    MT_CHECK_CONFIG(*model.group_query_attention || !model.num_query_groups ||
                        model.num_query_groups == model.num_attention_heads,
                    "num-query-groups (", model.num_query_groups.value_or(0),
                    ") contradicts group-query-attention (false)");
  }
  check_at_most("seq-length", std::optional(options.training.seq_length), "max-position-embeddings",
                model.max_position_embeddings);
  check_at_most("rotary-beta-slow", model.rotary_beta_slow, "rotary-beta-fast",
                model.rotary_beta_fast);
  MT_CHECK_CONFIG(!model.multi_latent_attention.value_or(false) || model.kv_lora_rank ||
                      !options.checkpoint.load.empty(),
                  "multi-latent-attention needs kv-lora-rank");
}

void check_experts(const Options& options) {
  const MoeOptions& moe = options.moe;
  check_at_most("moe-router-topk", moe.moe_router_topk, "num-experts", moe.num_experts);
  check_at_most("first-k-dense-replace", moe.first_k_dense_replace, "num-layers",
                options.model.num_layers);
  check_multiple("num-experts", moe.num_experts, "moe-router-num-groups",
                 moe.moe_router_num_groups);
  check_at_most("moe-router-group-topk", moe.moe_router_group_topk, "moe-router-num-groups",
                moe.moe_router_num_groups);
  MT_CHECK_CONFIG(!moe.moe_pad_expert_input_to_capacity || capacity_factor(moe),
                  "moe-pad-expert-input-to-capacity (true) needs a capacity: "
                  "moe-expert-capacity-factor or force-drop-and-padding");
}

// The fewer of two counts must divide the other: key and value heads are divided among the ranks,
// or each is held by several.
void check_query_groups(const ModelOptions& model, int64_t tensor) {
  if (!model.num_query_groups || model.kv_lora_rank) return;
  const int64_t groups = *model.num_query_groups;
  MT_CHECK_CONFIG(groups % tensor == 0 || tensor % groups == 0, "num-query-groups (", groups,
                  ") must be a multiple of tensor-model-parallel-size (", tensor,
                  "), or divide it");
}

// The down projections of latent attention are divided among the ranks unless they are replicated.
void check_latent_attention(const ModelOptions& model, int64_t tensor) {
  if (model.mla_replicate_l1) return;
  check_multiple("q-lora-rank", model.q_lora_rank, "tensor-model-parallel-size", tensor);
  if (!model.kv_lora_rank || !model.qk_rope_head_dim) return;
  MT_CHECK_CONFIG((*model.kv_lora_rank + *model.qk_rope_head_dim) % tensor == 0, "kv-lora-rank (",
                  *model.kv_lora_rank, ") plus qk-rope-head-dim (", *model.qk_rope_head_dim,
                  ") must be a multiple of tensor-model-parallel-size (", tensor,
                  ") without mla-replicate-l1");
}

// What is checked again by check_layout (arch/mesh_layout.h) once the whole model is known.
void check_tensor_parallel(const Options& options) {
  const ModelOptions& model = options.model;
  const MoeOptions& moe = options.moe;
  const int64_t tensor = options.parallel.tensor_model_parallel_size;
  MT_CHECK_CONFIG(tensor == 1 || options.parallel.sequence_parallel.value_or(true),
                  "sequence-parallel (false) contradicts tensor-model-parallel-size (", tensor,
                  "): several tensor-parallel ranks always divide the sequence");
  check_multiple("num-attention-heads", model.num_attention_heads, "tensor-model-parallel-size",
                 tensor);
  check_query_groups(model, tensor);
  check_latent_attention(model, tensor);
  // With experts everywhere there is no layer of this width.
  if (!moe.num_experts || moe.first_k_dense_replace.value_or(0) > 0)
    check_multiple("ffn-hidden-size", model.ffn_hidden_size, "tensor-model-parallel-size", tensor);
  const bool is_shared = moe.num_shared_experts || moe.enable_shared_expert.value_or(false);
  if (!is_shared || !moe.moe_ffn_hidden_size) return;
  const int64_t num_shared = moe.num_shared_experts.value_or(1);
  MT_CHECK_CONFIG(num_shared * *moe.moe_ffn_hidden_size % tensor == 0, "num-shared-experts (",
                  num_shared, ") times moe-ffn-hidden-size (", *moe.moe_ffn_hidden_size,
                  ") must be a multiple of tensor-model-parallel-size (", tensor, ")");
}

void check_expert_parallel(const Options& options, int64_t world_size) {
  const int64_t expert = options.parallel.expert_model_parallel_size;
  const int64_t tensor = options.parallel.tensor_model_parallel_for_expert;
  const int64_t pipeline = options.parallel.pipeline_model_parallel_size;
  check_multiple("num-experts", options.moe.num_experts, "expert-model-parallel-size", expert);
  check_multiple("moe-ffn-hidden-size", options.moe.moe_ffn_hidden_size,
                 "tensor-model-parallel-for-expert", tensor);
  const bool fits = expert * tensor <= world_size && pipeline <= world_size / (expert * tensor);
  MT_CHECK_CONFIG(fits && world_size % (expert * tensor * pipeline) == 0, "the number of ranks (",
                  world_size, ") must be a multiple of expert-model-parallel-size (", expert,
                  ") times tensor-model-parallel-for-expert (", tensor,
                  ") times pipeline-model-parallel-size (", pipeline, ")");
}

std::string spelled(bool value) {
  return value ? "true" : "false";
}

// Options that act only beside others.
void check_needs(const Options& options) {
  const OptimizerOptions& optimizer = options.optimizer;
  MT_CHECK_CONFIG(!optimizer.overlap_param_gather ||
                      (optimizer.use_distributed_optimizer && optimizer.overlap_grad_reduce),
                  "overlap-param-gather (true) needs use-distributed-optimizer (",
                  spelled(optimizer.use_distributed_optimizer), ") and overlap-grad-reduce (",
                  spelled(optimizer.overlap_grad_reduce), ") to be true");
  MT_CHECK_CONFIG(
      !options.model.mla_fuse_qkv || options.model.q_lora_rank || !options.checkpoint.load.empty(),
      "mla-fuse-qkv (true) needs q-lora-rank, which is not given");
  MT_CHECK_CONFIG(options.runtime.distributed_backend != DistributedBackend::kNccl ||
                      options.runtime.device != DeviceKind::kCpu,
                  "distributed-backend (nccl) needs device (cpu) to be cuda");
}

void check_batches(const Options& options, int64_t world_size) {
  const int64_t ranks = data_parallel_size(options.parallel, world_size);
  const int64_t micro = options.training.micro_batch_size;
  const int64_t global = options.training.global_batch_size;
  for (const int64_t size : {micro, global})
    MT_CHECK_CONFIG(size >= 1, "micro-batch-size (", micro, ") and global-batch-size (", global,
                    ") must be at least 1");
  MT_CHECK_CONFIG(global % (micro * ranks) == 0, "global-batch-size (", global,
                  ") must be a multiple of micro-batch-size (", micro,
                  ") times the data-parallel ranks (", ranks, ")");
}

void check_learning_rate(const Options& options) {
  const OptimizerOptions& optimizer = options.optimizer;
  check_at_most("min-lr", std::optional(optimizer.min_lr), "lr", std::optional(optimizer.lr));
  const int64_t decay = optimizer.lr_decay_iters.value_or(options.training.train_iters);
  check_at_most("lr-warmup-iters", std::optional(optimizer.lr_warmup_iters),
                optimizer.lr_decay_iters ? "lr-decay-iters" : "train-iters", std::optional(decay));
}

void check_split(const std::vector<double>& split) {
  MT_CHECK_CONFIG(split.size() <= 3, "split takes at most 3 shares, not ", split.size());
  const double sum = std::accumulate(split.begin(), split.end(), 0.0);
  MT_CHECK_CONFIG(sum > 0 && std::isfinite(sum), "split must have a share above 0");
  MT_CHECK_CONFIG(split[0] > 0, "split (", split[0], ", ...) leaves nothing to train on");
}

void validate_pretrain(const Options& options, int64_t world_size) {
  check_model(options);
  check_experts(options);
  check_tensor_parallel(options);
  check_expert_parallel(options, world_size);
  check_batches(options, world_size);
  check_needs(options);
  check_learning_rate(options);
  check_split(options.data.split);
}

void validate_preprocess(const Options& options) {
  MT_CHECK_CONFIG(options.tokenizer.tokenizer == TokenizerKind::kBytes ||
                      !options.tokenizer.tokenizer_model.empty(),
                  "preprocess needs tokenizer-model, or tokenizer bytes");
}

void validate_generate(const Options& options) {
  MT_CHECK_CONFIG(!options.checkpoint.load.empty(), "generate needs load");
  MT_CHECK_CONFIG(options.generate.prompt.empty() != options.generate.prompt_file.empty(),
                  "generate needs either prompt or prompt-file");
}

// With unit costs nothing is known of a model but its pipeline.
void validate_simulate(const Options& options) {
  const SimulateOptions& simulate = options.simulate;
  MT_CHECK_CONFIG(simulate.num_micro_batches || simulate.cost == SimulatedCosts::kModel,
                  "simulate needs num-micro-batches");
  if (simulate.cost == SimulatedCosts::kUnit) return;
  MT_CHECK_CONFIG(!simulate.hardware.empty(), "simulate with cost model needs hardware");
  MT_CHECK_CONFIG(simulate.world_size, "simulate with cost model needs world-size");
  const TrainingOptions& training = options.training;
  MT_CHECK_CONFIG(training.seq_length >= 1 && training.micro_batch_size >= 1,
                  "simulate with cost model needs seq-length and micro-batch-size");
  MT_CHECK_CONFIG(simulate.num_micro_batches || training.global_batch_size >= 1,
                  "simulate with cost model needs global-batch-size or num-micro-batches");
  check_experts(options);
  check_tensor_parallel(options);
  check_expert_parallel(options, *simulate.world_size);
}

void validate_compare_loss(const Options& options) {
  const size_t num_runs = options.curves.runs.size();
  MT_CHECK_CONFIG(num_runs == 2, "compare-loss compares 2 runs, not ", num_runs);
}

}  // namespace

void validate(const Options& options, Command command, int64_t world_size) {
  if (command == Command::kPretrain) validate_pretrain(options, world_size);
  if (command == Command::kPreprocess) validate_preprocess(options);
  if (command == Command::kGenerate) validate_generate(options);
  if (command == Command::kSimulate) validate_simulate(options);
  if (command == Command::kCompareLoss) validate_compare_loss(options);
}

int64_t data_parallel_size(const ParallelOptions& parallel, int64_t world_size) {
  const int64_t tensor = parallel.tensor_model_parallel_size;
  const int64_t pipeline = parallel.pipeline_model_parallel_size;
  MT_CHECK(world_size >= 1 && tensor >= 1 && pipeline >= 1, "a mesh of ", world_size, " ranks");
  MT_CHECK_CONFIG(world_size % (tensor * pipeline) == 0, "the number of ranks (", world_size,
                  ") must be a multiple of tensor-model-parallel-size (", tensor,
                  ") times pipeline-model-parallel-size (", pipeline, ")");
  return world_size / (tensor * pipeline);
}

std::optional<double> capacity_factor(const MoeOptions& moe) {
  if (moe.moe_expert_capacity_factor) return moe.moe_expert_capacity_factor;
  return moe.force_drop_and_padding ? std::optional(1.0) : std::nullopt;
}

bool pads_to_capacity(const MoeOptions& moe) {
  return moe.force_drop_and_padding || moe.moe_pad_expert_input_to_capacity;
}

}  // namespace moetron
