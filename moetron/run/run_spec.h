// A run as its options, its model's config.json and its number of ranks resolve to: made once, by
// run/resolve.h, which also refuses what does not fit together, and read by everything below the
// command line. Plain data; what is not said of a field is said of the option that it comes from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moetron/arch/layer_range.h"
#include "moetron/arch/lora.h"
#include "moetron/arch/mesh_layout.h"
#include "moetron/arch/model_config.h"
#include "moetron/arch/stage_layers.h"
#include "moetron/base/json.h"
#include "moetron/config/choices.h"
#include "moetron/run/frozen_parts.h"
#include "moetron/run/lr_schedule.h"
#include "moetron/schedule/recompute.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

// The pipeline: what its schedule is made of, and the layers of its stages.
struct PipelineSettings {
  ScheduleRequest request;
  std::vector<StageLayers> stages;  // by stage
};

struct BatchSpec {
  int64_t seq_length = 0;         // tokens
  int64_t micro_batch_size = 0;   // sequences
  int64_t global_batch_size = 0;  // sequences; 0 where a simulation counts micro-batches instead
  int64_t num_micro_batches = 0;  // of a step, on each rank

  int64_t tokens() const { return seq_length * micro_batch_size; }  // of a micro-batch
};

// How multi-head latent attention is computed.
struct LatentAttentionSpec {
  bool replicate_down = false;   // its down projections are whole on every tensor-parallel rank
  bool fuse_down = false;        // one product for both of them; a run recomputes norms with it
  bool recompute_norms = false;  // those in front of and behind the down projections
};

// How tokens reach their experts, and how the experts compute.
//
// Of every dispatcher it is true that the executor starts its dispatch and its combine, forward and
// backward, before other compute and waits for them behind it: in a block the other micro-batch's,
// in any step the shared expert. What a dispatcher decides is how much travels (`scheme`).
struct ExpertsSpec {
  TokenDispatcher dispatcher = TokenDispatcher::kAllGatherFused;
  // How often a token travels: scheme_of(dispatcher), unless a simulation assumes another.
  DispatchScheme scheme = DispatchScheme::kAllGather;
  bool lone_steps_wait =
      false;                 // a simulation's assumption: nothing runs beside what travels alone
  bool grouped_gemm = true;  // one product for all experts of a rank
  std::optional<double> capacity_factor;  // rows of an expert over the mean; empty: no drop
  TokenDropPolicy drop_policy = TokenDropPolicy::kProbs;
  bool pad_to_capacity = false;  // every expert's rows are filled up to its capacity
  bool force_balance = false;    // tokens go to random experts, whatever the router says
};
DispatchScheme scheme_of(TokenDispatcher dispatcher);

// What the backward computes again instead of keeping; one of them.
enum class Recompute {
  kNothing,
  kExpertProduct,  // the first of an expert's two products, and the activation
  kMoeLayer,       // dispatch, the experts and the shared expert
  kLayer,          // decoder layers
};
struct RecomputeSpec {
  Recompute kind = Recompute::kNothing;
  int64_t layers_per_input = 1;  // that share one kept input under kLayer

  // What of it is the chunks' business; the rest is the experts'.
  RecomputeSettings of_chunks() const;
};

// Products in 8 bits.
struct Fp8Spec {
  bool gradients_in_e5m2 = false;
  bool weight_grad = true;  // in 8 bits, too
  bool dispatch = true;     // tokens travel to experts in 8 bits, and gradients back
  int64_t first_layer = 0;  // decoder layers [first_layer, end_layer)
  int64_t end_layer = 0;

  bool has_layer(int64_t layer) const { return layer >= first_layer && layer < end_layer; }
};

// Whether ATen's single operators compute instead of the fastest ones.
struct OperatorsSpec {
  bool plain = false;            // of a layer, but its attention
  bool plain_attention = false;  // queries, keys and values to mixed values
};

struct OptimizerSpec {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;
  double clip_grad = 0;      // global norm; 0: off
  bool is_hybrid = false;    // states on the host, updated there:
  double host_fraction = 0;  // of the elements
  bool pin_host_memory = false;
  bool distributed = false;  // replicas divide the states
  bool overlap_reduce = false;
  bool overlap_gather = false;
};

// Of preference tuning by pairs of answers (train/preference_loss.h).
struct PreferenceSpec {
  double beta = 0.1;           // what a difference of log-probabilities counts
  double label_smoothing = 0;  // share of pairs that are taken to be the wrong way round
};

// In steps; 0: never.
struct StepsSpec {
  int64_t train = 0;
  int64_t eval_interval = 1;
  int64_t eval = 0;             // of an evaluation
  int64_t sample_interval = 0;  // of answers to questions of the data; 0: never
  int64_t exit_interval = 0;
  double exit_after = 0;  // seconds
  int64_t save_interval = 0;
};

struct DataSpec {
  std::vector<std::string> path;  // as --data-path has it
  bool mock = false;              // random tokens instead
  std::vector<double> split;      // shares of training, validation, test
  std::string cache_path;         // empty: indices are kept in memory
  bool eod_mask_loss = false;
  bool reset_position_ids = false;
  bool reset_attention_mask = false;
};

struct TokenizerSpec {
  TokenizerKind kind = TokenizerKind::kHf;
  std::string path;  // its file or folder; empty: none was named
};

struct SaveSpec {
  bool in_background = false;
  int64_t max_failures = 1;  // in a row: so many end the run
  int64_t keep_last = 0;     // checkpoints; 0: all, or the newest one beside keep_every
  int64_t keep_every = 0;    // steps; 0: none is kept for its step
};

// Where a run begins, and where it saves: what is known before its model.
struct StartSpec {
  std::string save;  // folder; empty: nothing is saved
  std::string load;  // folder; empty: a fresh model
  std::string base;  // folder of an adapter's model; empty: the one that the adapter names
  TokenizerSpec tokenizer;
  bool load_optimizer = true;
  bool save_optimizer = true;
  bool weights_alone = false;                 // of a run in `load`, which is not continued
  std::optional<int64_t> step;                // of a run in `load`; empty: the newest
  std::optional<LayerRange> layers;           // of the model in `load`; empty: all
  std::optional<int64_t> vocab_size;          // that is asked for; Megatron's files know it padded
  std::vector<std::string> accepted_changes;  // names of options, or "all"
  bool keeps_schedule = false;  // of a run that is continued: its learning rates and weight decay
  bool restart = false;         // begin anew where no checkpoint in `save` can be loaded
  std::string metrics;          // file; empty: none
  bool verify = true;           // every block of the files that a manifest lists
};

struct LogSpec {
  int64_t interval = 1;        // steps
  std::string tensorboard;     // folder; empty: none
  std::string metrics;         // file; empty: none
  std::string picture;         // of the losses; empty: none
  bool params_norm = false;    // is computed and written behind every step
  bool zeros_in_grad = false;  // likewise
  std::string profile_folder;  // empty: no step is recorded
  std::string profile_ending;  // of the pictures' names: ".svg" or ".png"
  int64_t profile_begin = 0;   // steps [begin, end) are recorded
  int64_t profile_end = 0;
  int64_t hash_steps = 0;  // a receipt every so many; 0: never
};

struct RunSpec {
  ModelConfig model;
  ParallelSizes sizes;
  PipelineSettings pipeline;
  BatchSpec batch;
  LatentAttentionSpec latent_attention;
  ExpertsSpec experts;
  RecomputeSpec recompute;
  Dtype dtype = Dtype::kAuto;  // of parameters and activations; not kFp8
  std::optional<Fp8Spec> fp8;
  OperatorsSpec operators;
  FrozenParts frozen;
  std::optional<LoraConfig> lora;  // empty: the model itself is trained
  OptimizerSpec optimizer;

  // Of training alone.
  std::optional<PreferenceSpec> preferences;  // empty: the labels are learned
  LrSchedule lr;
  StepsSpec steps;
  DataSpec data;
  StartSpec start;
  SaveSpec save;
  LogSpec log;
  int64_t seed = 0;
  Json options;                      // as given: what a checkpoint notes of them
  std::vector<std::string> remarks;  // what the user should know of how it was resolved

  // Of a micro-batch, on each of the ranks that divide its sequences among them.
  double tokens() const { return static_cast<double>(batch.tokens()); }
  double tokens_per_rank() const { return tokens() / static_cast<double>(sizes.tp); }
};

// What `moetron simulate` is asked for.
struct SimulationSpec {
  std::optional<RunSpec> run;  // empty: unit costs, which know no model
  PipelineSettings pipeline;
  double communication = 0;         // of unit costs: exposed, of an F and an I; units
  bool overlap_neighbours = false;  // an assumption: schedule/overlapped.h
  std::string hardware;             // file; of a run
  std::string draw;                 // file; empty: none
  std::string trace;                // file; empty: none
  bool json = false;
};

}  // namespace moetron
