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
  check_multiple("num-experts", moe.num_experts, "expert-model-parallel-size",
                 options.parallel.expert_model_parallel_size);
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
  check_batches(options, world_size);
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

}  // namespace

void validate(const Options& options, Command command, int64_t world_size) {
  if (command == Command::kPretrain) validate_pretrain(options, world_size);
  if (command == Command::kPreprocess) validate_preprocess(options);
  if (command == Command::kGenerate) validate_generate(options);
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
