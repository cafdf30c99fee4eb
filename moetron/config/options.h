// The options of a run as plain structs, one per group. A field is named like its option with _ for
// - (--global-batch-size is training.global_batch_size); option_table.h says what each one means.
//
// A std::optional field is empty unless the user gave the option: the model's config.json may know
// the value, and one that contradicts it is refused. An empty string or list also means "not
// given". Options that have no effect, or that are refused, have no field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moetron/config/choices.h"
#include "moetron/config/generate_options.h"
#include "moetron/config/model_formats.h"
#include "moetron/config/plan_options.h"
#include "moetron/config/sft_options.h"
#include "moetron/config/tuning_options.h"

namespace moetron {

enum class Command {
  kPretrain,
  kSft,
  kPreprocess,
  kGenerate,
  kChat,
  kSimulate,
  kExplain,
  kPlan,
  kCompareLoss,
  kPlot,
  kConvert,
  kCompare,
  kBench,
  kLaunch,
  kDemo,
  kDoctor
};

// The model's shape. Empty fields come from the config.json of --load, or from the family.
struct ModelOptions {
  std::optional<ModelFamily> model_family;
  std::optional<int64_t> num_layers;
  std::optional<int64_t> hidden_size;
  std::optional<int64_t> ffn_hidden_size;
  std::optional<int64_t> num_attention_heads;
  std::optional<bool> group_query_attention;
  std::optional<int64_t> num_query_groups;
  std::optional<int64_t> kv_channels;
  std::optional<int64_t> max_position_embeddings;
  std::optional<double> norm_epsilon;
  std::optional<bool> add_qkv_bias;
  std::optional<bool> qk_layernorm;
  std::optional<bool> untie_embeddings_and_output_weights;
  double init_method_std = 0.02;

  std::optional<double> rotary_base;
  std::optional<double> rotary_scaling_factor;  // YaRN, with the five below
  std::optional<double> rotary_mscale;
  std::optional<double> rotary_mscale_all_dim;
  std::optional<int64_t> original_max_position_embeddings;
  std::optional<double> rotary_beta_fast;
  std::optional<double> rotary_beta_slow;

  std::optional<bool> multi_latent_attention;
  std::optional<int64_t> q_lora_rank;
  std::optional<int64_t> kv_lora_rank;
  std::optional<int64_t> qk_rope_head_dim;
  std::optional<int64_t> qk_nope_head_dim;
  std::optional<int64_t> v_head_dim;
  bool mla_replicate_l1 = false;  // under tensor parallelism: down projections whole on every rank
  bool mla_fuse_qkv = false;      // one down projection, norms recomputed

  std::optional<int64_t> vocab_size;  // without padding
  int64_t extra_vocab_size = 0;
};

struct MoeOptions {
  std::optional<int64_t> num_experts;
  std::optional<int64_t> moe_router_topk;
  std::optional<int64_t> moe_ffn_hidden_size;
  std::optional<bool> enable_shared_expert;
  std::optional<int64_t> num_shared_experts;
  std::optional<bool> enable_shared_expert_gate;
  std::optional<int64_t> first_k_dense_replace;
  std::string moe_layer_freq;  // instead of first_k_dense_replace; run/megatron_terms.h
  std::optional<int64_t> moe_shared_expert_intermediate_size;  // instead of num_shared_experts
  std::optional<bool> moe_router_deepseekv3;
  std::optional<RouterScoreFunction> moe_router_score_function;
  std::optional<bool> moe_router_enable_expert_bias;
  double moe_router_bias_update_rate = 1e-3;
  std::optional<double> moe_router_topk_scaling_factor;
  std::optional<bool> moe_router_pre_softmax;
  std::optional<int64_t> moe_router_num_groups;
  std::optional<int64_t> moe_router_group_topk;
  std::optional<double> moe_aux_loss_coeff;
  std::optional<LoadBalancing> moe_router_load_balancing_type;
  TokenDispatcher moe_token_dispatcher_type = TokenDispatcher::kAllGatherFused;
  std::optional<bool>
      moe_grouped_gemm;  // or --moe-grouped-gemm-te; false: one expert after the other
  bool force_drop_and_padding = false;
  std::optional<double> moe_expert_capacity_factor;  // see ExpertsSpec of run/run_spec.h
  bool moe_pad_expert_input_to_capacity = false;     // likewise
  TokenDropPolicy moe_token_drop_policy = TokenDropPolicy::kProbs;
  bool moe_router_force_load_balancing = false;
};

struct TrainingOptions {
  int64_t seq_length = 0;         // tokens; required
  int64_t micro_batch_size = 0;   // sequences; required
  int64_t global_batch_size = 0;  // sequences; required
  int64_t train_iters = 0;        // steps; required, or
  std::optional<int64_t> train_samples;
  int64_t eval_interval = 1000;      // steps
  int64_t eval_iters = 100;          // steps of an evaluation; <= 0: none
  int64_t exit_interval = 0;         // steps; 0: never
  double exit_duration_in_mins = 0;  // 0: never
  Dtype dtype = Dtype::kAuto;
};

struct PrecisionOptions {
  std::optional<Fp8Format> fp8_format;  // empty: products are not in 8 bits, unless dtype is kFp8
  Fp8Recipe fp8_recipe = Fp8Recipe::kBlockwise;
  Fp8WeightGrad fp8_wgrad = Fp8WeightGrad::kFp8;
  std::optional<bool> moe_fp8_dispatch;  // empty: where weight gradients are in 8 bits
  bool first_last_layers_bf16 = false;
  int64_t num_layers_at_start_in_bf16 = 1;  // with first_last_layers_bf16
  int64_t num_layers_at_end_in_bf16 = 1;
};

struct OptimizerOptions {
  double lr = 0;  // required
  double min_lr = 0;
  LrDecayStyle lr_decay_style = LrDecayStyle::kLinear;
  std::optional<int64_t> lr_decay_iters;  // steps, warm-up included; empty: train_iters
  int64_t lr_warmup_iters = 0;            // steps
  // Instead of steps, samples or a share of the decay.
  std::optional<int64_t> lr_decay_samples;
  int64_t lr_warmup_samples = 0;
  std::optional<double> lr_warmup_fraction;
  double lr_warmup_init = 0;
  double weight_decay = 0.01;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_eps = 1e-8;
  double clip_grad = 1.0;  // global norm; 0: off
  OptimizerKind optimizer = OptimizerKind::kAdam;
  double optimizer_offload_fraction = 1;  // of the elements; with kHybridAdam
  bool optimizer_enable_pin = false;
  bool use_distributed_optimizer = false;
  bool overlap_grad_reduce = false;
  bool overlap_param_gather = false;
};

struct CheckpointOptions {
  std::string save;           // directory; empty: nothing is saved
  std::string load;           // directory; empty: a fresh model
  int64_t save_interval = 0;  // steps; 0: at the end only
  bool async_save = false;
  int64_t save_failures = 3;  // in a row, that end the run
  int64_t keep_last = 0;      // checkpoints; 0: all
  int64_t keep_every = 0;     // steps; 0: none is kept for its step
  bool no_save_optim = false;
  bool no_load_optim = false;
  bool finetune = false;
  std::string load_layers;                  // "0-6" of the model in load; empty: all
  std::optional<int64_t> ckpt_step;         // of the run in load; empty: the newest
  std::vector<std::string> accept_changes;  // names of options, or "all"
  bool use_checkpoint_args = false;         // the model in load counts where options contradict it
  // Of a run that is continued with other learning rates: whose count. Neither: it is refused.
  bool override_opt_param_scheduler = false;
  bool use_checkpoint_opt_param_scheduler = false;
  bool restart = false;
  // Of the files that a manifest lists; convert reads its own again where this is set.
  std::optional<bool> verify;
};

struct LoggingOptions {
  int64_t log_interval = 100;  // steps
  std::string tensorboard_dir;
  std::string metrics;  // JSONL file; empty: metrics.jsonl under --save
  bool log_params_norm = false;
  bool log_num_zeros_in_grad = false;
  bool profile = false;
  int64_t profile_step_start = 10;  // steps [start, end) are recorded
  int64_t profile_step_end = 12;
  PictureFormat profile_format = PictureFormat::kSvg;
  int64_t hash_steps = 0;  // 0: never
};

struct DataOptions {
  std::vector<std::string> data_path;     // one prefix, or weight prefix weight prefix ...
  bool mock_data = false;                 // random tokens instead
  std::vector<double> split{969, 30, 1};  // shares of training, validation, test
  std::string data_cache_path;
  bool eod_mask_loss = false;
  bool reset_position_ids = false;
  bool reset_attention_mask = false;
};

struct TokenizerOptions {
  TokenizerKind tokenizer = TokenizerKind::kHf;
  std::string tokenizer_model;  // its file or directory
  std::optional<PatchTokenizer> patch_tokenizer_type;
};

// Ranks along each axis of the mesh.
struct ParallelOptions {
  int64_t tensor_model_parallel_size = 1;
  int64_t tensor_model_parallel_for_expert = 1;
  int64_t expert_model_parallel_size = 1;
  int64_t pipeline_model_parallel_size = 1;
  ScheduleKind scheduler = ScheduleKind::k1F1B;
  // How the layers are divided among the stages; see pipeline_settings() of
  // run/pipeline_from_options.h. At most a few are given, and they must agree.
  std::vector<int64_t> hetero_pipeline_stages;
  std::vector<int64_t> virtual_hetero_pipeline_stages;
  std::optional<int64_t> num_layers_per_virtual_pipeline_stage;
  std::optional<int64_t> num_virtual_stages_per_pipeline_rank;
  // Megatron's ways to say the same (run/megatron_terms.h).
  std::string pipeline_model_parallel_layout;
  std::optional<int64_t> decoder_first_pipeline_num_layers;
  std::optional<int64_t> decoder_last_pipeline_num_layers;
  bool account_for_embedding_in_pipeline_split = false;
  bool account_for_loss_in_pipeline_split = false;
  // Of dualpipev+: chunk-micro-batches that a rank may hold, 0: no cap; and the expert
  // communication of a chunk's forward over its compute, which the list is made for.
  int64_t pipeline_activation_cap = 0;
  double pipeline_communication = 0.5;
  std::optional<bool> sequence_parallel;  // always on where tensor_model_parallel_size > 1
};

// What the backward recomputes. At most one of the three kinds is set: the stronger one drops the
// weaker (full, then the expert part of a layer, then the experts' first product).
struct MemoryOptions {
  std::optional<RecomputeGranularity> recompute_granularity;
  RecomputeMethod recompute_method = RecomputeMethod::kUniform;
  int64_t recompute_num_layers = 1;            // layers that share one kept input
  std::vector<std::string> recompute_modules;  // Megatron's names; run/megatron_terms.h
  bool moe_layer_recompute = false;
  bool mlp_recompute = false;
};

struct KernelOptions {
  TransformerImpl transformer_impl = TransformerImpl::kTransformerEngine;
  std::vector<std::string> module_impl;  // "core_attn:local"
  bool use_flash_attn = false;
};

struct RuntimeOptions {
  int64_t seed = 1234;
  bool deterministic = false;
  DeviceKind device = DeviceKind::kAuto;
  DistributedBackend distributed_backend = DistributedBackend::kAuto;
  double comm_timeout = 600;  // seconds
  int64_t nccl_max_ctas = 0;  // of one NCCL communicator; 0: NCCL's own choice
  bool peer_copies = false;   // where GPUs write to each other's memory
  int64_t num_threads = 0;    // compute threads of a rank; 0: as many as there are cores
  // Of runs that are planned, not started.
  bool dry_run = false;
  bool check_layout = false;
  std::optional<int64_t> world_size;  // ranks
  std::string hardware;               // TOML file; empty: the built-in one, where that serves
};

// What the files of text are; kAuto: told by their names, and by their contents where the names do
// not say.
enum class TextFormat { kAuto, kJsonl, kJson, kText };

// A known layout of records. kWudao: arrays of objects with a title and content; the others are
// conversations.
enum class RecordLayout { kWudao, kConversations, kMessages, kShareGpt, kAlpaca, kPrompt };

struct PreprocessOptions {
  std::vector<std::string> input;  // text or JSONL files
  std::string output_prefix;
  std::vector<std::string> json_keys{"text"};
  TextFormat format = TextFormat::kAuto;
  std::optional<RecordLayout> from;
  bool clean = false;
  bool append_eod = false;
  bool prepend_bos = false;
  int64_t workers = 1;  // threads
  bool skip_bad_lines = false;
  bool strict = false;  // of conversations
};

struct ConvertOptions {
  std::optional<ModelFormat> from;  // none: what `load` is
  ModelFormat to = ModelFormat::kHf;
  WeightDtype dtype = WeightDtype::kStored;
  std::string shard_size = "5GB";  // bytes of tensors in a file, with a unit
  std::string merge_adapter;       // folder; empty: none
  std::string model_files;         // folder of config.json, where `load` has none
  int64_t make_vocab_size_divisible_by = 128;
};

struct CompareOptions {
  std::vector<std::string> models;  // two folders, or two safetensors files
  double atol = 0;                  // a difference within either tolerance is none
  double rtol = 0;
  int64_t top = 10;  // rows of the table
};

struct SimulateOptions {
  SimulatedCosts cost = SimulatedCosts::kUnit;
  std::optional<int64_t> num_micro_batches;       // of a step; else the batch sizes say
  double communication = 0;                       // of unit costs: exposed, of an F and an I; units
  std::optional<DispatchScheme> dispatch_scheme;  // else the dispatcher's own
  bool lone_steps_wait = false;
  bool overlap_neighbours = false;
  std::string draw;  // .svg or .png
};

enum class Benchmark { kStep, kOps, kOverlap };
// A few layers of a published model, with the experts of one rank (bench/bench_slice.h).
enum class BenchSlice { kQwen3235b, kDeepseekV3 };

struct BenchOptions {
  Benchmark benchmark = Benchmark::kStep;
  std::optional<BenchSlice> slice;  // empty: both, one after the other
  int64_t warmup = 3;               // iterations
  int64_t iterations = 10;
  bool with_optimizer = false;
  int64_t profile_top = 0;  // kernels
  int64_t ep = 16;          // ranks
  double sustain = 0;       // seconds; 0: kernels are measured one by one on a cool GPU
  double rest = 0;          // seconds before each measured micro-batch
};

// How `moetron launch` starts ranks; the names are torchrun's.
struct LaunchOptions {
  std::optional<int64_t> nproc_per_node;  // empty: a rank for each GPU, or one
  int64_t nnodes = 1;
  std::optional<int64_t> node_rank;
  std::string master_addr;
  std::optional<int64_t> master_port;
  int64_t max_restarts = 0;
  std::string log_dir;  // empty: all ranks write to the screen
};

struct ExplainOptions {
  std::vector<std::string> script;     // file, and what it would be given
  std::vector<std::string> arguments;  // words instead of a file
};

// What commands beside training give out.
struct ReportOptions {
  bool json = false;
  std::string trace;  // Chrome trace
};

struct CurveOptions {
  std::vector<std::string> runs;    // files and folders
  std::vector<std::string> labels;  // of the runs, in their order; empty: their paths
  std::string metric = "loss";
  std::string bars;  // a metric whose medians are drawn; empty: curves are
  bool log_x = false;
  bool log_y = false;
  std::string picture;      // .png or .svg
  double tolerance = 0.01;  // relative
  int64_t smooth = 1;       // points
};

struct Options {
  ModelOptions model;
  MoeOptions moe;
  TrainingOptions training;
  PrecisionOptions precision;
  TuningOptions tuning;
  OptimizerOptions optimizer;
  CheckpointOptions checkpoint;
  LoggingOptions logging;
  DataOptions data;
  SftOptions sft;
  TokenizerOptions tokenizer;
  ParallelOptions parallel;
  MemoryOptions memory;
  KernelOptions kernels;
  RuntimeOptions runtime;
  PreprocessOptions preprocess;
  ConvertOptions convert;
  CompareOptions compare;
  GenerateOptions generate;
  SimulateOptions simulate;
  PlanOptions plan;
  CurveOptions curves;
  BenchOptions bench;
  LaunchOptions launch;
  ExplainOptions explain;
  ReportOptions report;
};

}  // namespace moetron
