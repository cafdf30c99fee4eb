#include "moetron/run/resolve.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "moetron/arch/config_reader.h"
#include "moetron/base/mistakes.h"
#include "moetron/config/option_value.h"
#include "moetron/run/changed_options.h"
#include "moetron/run/config_from_options.h"
#include "moetron/run/division.h"
#include "moetron/run/fill_spec.h"
#include "moetron/run/megatron_terms.h"
#include "moetron/run/option_checks.h"
#include "moetron/run/pipeline_from_options.h"
#include "moetron/run/sft_choices.h"
#include "moetron/run/start_remarks.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// The model, as far as it is known; what is wrong with it joins the mistakes.
using MakeModel = std::function<std::optional<ModelConfig>(Mistakes&)>;

// A resolution under way, topic by topic. What needs a topic that has mistakes is left out.
class Resolution {
 public:
  // `mistakes`: those that were found before.
  Resolution(const Options& options, int64_t world_size, Mistakes mistakes)
      : options_(options), world_size_(world_size), mistakes_(std::move(mistakes)) {}

  Mistakes& mistakes() { return mistakes_; }
  bool knows_model() const { return knows_model_; }

  // `make_model` null: the model is not known yet. `num_micro_batches`: of a step; empty: the batch
  // sizes say.
  void resolve(const MakeModel& make_model, std::optional<int64_t> num_micro_batches = {}) {
    resolve_model(make_model);
    resolve_mesh();
    resolve_batch(num_micro_batches);
    resolve_pipeline();
    check_combinations(options_, mistakes_);
    fill_spec(options_, spec_);
    if (knows_model_) mistakes_.collect([&] { fill_tuning(options_, spec_); });
    mistakes_.check(!spec_.fp8 || !spec_.model.moe || !spec_.model.moe->shared_expert_gate,
                    "fp8-format does not go with a shared expert that has a gate: that is not "
                    "there yet");
    mistakes_.check(!spec_.fp8 || !spec_.lora, "lora-rank (", options_.tuning.lora_rank,
                    ") does not go with fp8-format: updates of weights that multiply in 8 bits are "
                    "not there yet");
    mistakes_.check(!spec_.fp8 || !spec_.operators.plain,
                    "transformer-impl (local) contradicts fp8-format (",
                    spec_.fp8 && spec_.fp8->gradients_in_e5m2 ? "hybrid" : "e4m3",
                    "): plain operators do not multiply in 8 bits");
    if (spec_.fp8 && knows_model_ && knows_sizes_) {
      mistakes_.check(spec_.fp8->first_layer < spec_.fp8->end_layer,
                      "fp8-format: no layer is left; num-layers (", spec_.model.num_layers,
                      ") must be more than num-layers-at-start-in-bf16 (", spec_.fp8->first_layer,
                      ") plus num-layers-at-end-in-bf16 (",
                      spec_.model.num_layers - spec_.fp8->end_layer, ")");
      check_fp8_division(spec_.model, spec_.sizes, options_.model.mla_replicate_l1, mistakes_);
    }
  }

  // What was resolved, if there is nothing to refuse.
  RunSpec take() {
    mistakes_.throw_if_any();
    return std::move(spec_);
  }
  const RunSpec& spec() const { return spec_; }

 private:
  void resolve_model(const MakeModel& make_model) {
    check_model_options(options_, mistakes_);
    if (!make_model) return;
    std::optional<ModelConfig> model = make_model(mistakes_);
    knows_model_ = model.has_value();
    if (model) spec_.model = std::move(*model);
  }

  void resolve_mesh() {
    const ParallelOptions& p = options_.parallel;
    knows_sizes_ = mistakes_.collect([&] {
      spec_.sizes =
          parallel_sizes(world_size_, p.tensor_model_parallel_size, p.pipeline_model_parallel_size,
                         p.expert_model_parallel_size, p.tensor_model_parallel_for_expert);
    });
    const ParallelSizes asked{.tp = p.tensor_model_parallel_size,
                              .pp = p.pipeline_model_parallel_size,
                              .tpe = p.tensor_model_parallel_for_expert,
                              .ep = p.expert_model_parallel_size};
    check_division(knows_model_ ? divided_widths(spec_.model, options_.model.mla_replicate_l1)
                                : divided_widths(options_),
                   asked, mistakes_);
  }

  void resolve_batch(std::optional<int64_t> num_micro_batches) {
    const TrainingOptions& training = options_.training;
    BatchSpec& batch = spec_.batch;
    batch = {training.seq_length, training.micro_batch_size, training.global_batch_size};
    const auto positions = knows_model_ ? std::optional(spec_.model.max_position_embeddings)
                                        : options_.model.max_position_embeddings;
    mistakes_.check(!positions || batch.seq_length <= *positions, "seq-length (", batch.seq_length,
                    ") must be at most max-position-embeddings (", positions.value_or(0), ")");
    if (!knows_sizes_) return;
    knows_batch_ = mistakes_.collect([&] {
      batch.num_micro_batches =
          num_micro_batches ? *num_micro_batches
                            : moetron::num_micro_batches(spec_.sizes, batch.micro_batch_size,
                                                         batch.global_batch_size);
    });
  }

  // Of a model that is not known, what the options say of its layers.
  void resolve_pipeline() {
    const auto num_layers =
        knows_model_ ? std::optional(spec_.model.num_layers) : options_.model.num_layers;
    if (!num_layers) return;
    mistakes_.collect([&] {
      spec_.pipeline =
          pipeline_settings(options_.parallel, *num_layers, spec_.batch.num_micro_batches);
      if (knows_batch_) check_schedule(spec_.pipeline.request);
    });
  }

  const Options& options_;
  int64_t world_size_;
  Mistakes mistakes_;
  RunSpec spec_;
  bool knows_model_ = false;
  bool knows_sizes_ = false;
  bool knows_batch_ = false;
};

// What --patch-tokenizer-type means for the vocabulary (the Megatron scripts' arithmetic).
int64_t vocabulary_from_tokenizer(const Options& options, const RunFacts::Vocabulary& tokenizer) {
  const int64_t extra = options.model.extra_vocab_size;
  if (!options.tokenizer.patch_tokenizer_type) return tokenizer.size + extra;
  switch (*options.tokenizer.patch_tokenizer_type) {
    case PatchTokenizer::kDeepseek:
      return tokenizer.size + extra - 2;
    case PatchTokenizer::kQwen3:
      return tokenizer.base_size + extra;
  }
  throw InternalError("unknown tokenizer patch");
}

// Known, however much of the options contradicts it. `place`: of what tells it.
ModelConfig model_of(ModelConfig config, const std::string& place, const Options& options,
                     Mistakes& mistakes) {
  mistakes.collect([&] { check_options_match(config, options, place); });
  mistakes.collect([&] { apply_training_options(options, config); });
  return config;
}

std::optional<ModelConfig> model_of_folder(const fs::path& folder, const Options& options,
                                           Mistakes& mistakes) {
  std::optional<ModelConfig> config;
  mistakes.collect([&] { config = read_model_config(folder); });
  if (!config) return {};
  return model_of(*config, (folder / "config.json").string(), options, mistakes);
}

// What serves where nothing depends on the vocabulary.
constexpr RunFacts::Vocabulary kAnyVocabulary{3, 3};

std::optional<ModelConfig> fresh_model(const Options& options,
                                       const std::optional<RunFacts::Vocabulary>& known,
                                       Mistakes& mistakes) {
  Options filled = options;
  const bool knows_vocabulary =
      mistakes.check(filled.model.vocab_size || known,
                     "vocab-size: give it, or --tokenizer-model, or --load, for a fresh model");
  if (!filled.model.vocab_size)
    filled.model.vocab_size = vocabulary_from_tokenizer(options, known.value_or(kAnyVocabulary));
  std::optional<ModelConfig> config;
  mistakes.collect([&] { config = model_config_from_options(filled); });
  return knows_vocabulary ? config : std::nullopt;
}

// Whether the options are all that there is to know of the model, but for a tokenizer's vocabulary:
// what --load or an earlier run in --save holds may say more.
bool describe_the_model(const Options& options) {
  const ModelOptions& m = options.model;
  const CheckpointOptions& c = options.checkpoint;
  std::error_code ignored;
  return c.load.empty() && (c.save.empty() || !fs::exists(c.save, ignored)) && m.num_layers &&
         m.hidden_size && m.num_attention_heads;
}

void validate_pretrain(const Options& given, int64_t world_size) {
  Mistakes found;
  const Options options = in_own_terms(given, found);
  Resolution resolution(options, world_size, std::move(found));
  check_training_needs(options, resolution.mistakes());
  resolution.mistakes().collect([&] { resolve_start(options); });
  MakeModel make_model;
  if (describe_the_model(options)) {
    make_model = [&](Mistakes& mistakes) { return fresh_model(options, kAnyVocabulary, mistakes); };
  }
  resolution.resolve(make_model);
  check_learning_rate(options, resolution.mistakes());
  check_split(options.data.split, resolution.mistakes());
  resolution.take();
}

// Before the conversations are known, as if there were few of them and short.
void validate_sft(const Options& given, int64_t world_size) {
  SftChoices choices(given);
  choices.see_conversations({.num_conversations = 1, .longest = 1});
  choices.see_packs({.first_epoch = 1, .all_epochs = 1, .world_size = world_size});
  validate_pretrain(choices.options(), world_size);
}

// `num_micro_batches`: of a step; empty: the batch sizes say. `before`: mistakes known already.
Resolution resolution_of_run(const Options& options, const RunFacts& facts,
                             std::optional<int64_t> num_micro_batches, Mistakes before) {
  Resolution resolution(options, facts.world_size, std::move(before));
  resolution.resolve(
      [&](Mistakes& found) {
        if (facts.told_model)
          return std::optional(
              model_of(facts.told_model->config, facts.told_model->place, options, found));
        return facts.model_folder.empty() || facts.options_tell_model
                   ? fresh_model(options, facts.tokenizer, found)
                   : model_of_folder(facts.model_folder, options, found);
      },
      num_micro_batches);
  return resolution;
}

// In our own terms; where the model that is loaded counts, without what contradicts it, of which
// `overruled` tells.
Options options_of_run(const Options& given, const RunFacts& facts, Mistakes& mistakes,
                       std::string* overruled = nullptr) {
  Options options = in_own_terms(given, mistakes);
  if (!options.checkpoint.use_checkpoint_args) return options;
  std::optional<ModelConfig> stored;
  Mistakes told_later;
  if (facts.told_model)
    stored = facts.told_model->config;
  else if (!facts.model_folder.empty() && !facts.options_tell_model)
    told_later.collect([&] { stored = read_model_config(facts.model_folder); });
  if (!stored) return options;
  const std::string instead = overrule_options(*stored, options);
  if (overruled != nullptr) *overruled = instead;
  return options;
}

// Unit costs know no model: the numbers of layers decide only how many chunks a rank has.
int64_t num_layers_of(const Options& options) {
  if (options.model.num_layers) return *options.model.num_layers;
  const ParallelOptions& parallel = options.parallel;
  const auto& given = parallel.virtual_hetero_pipeline_stages.empty()
                          ? parallel.hetero_pipeline_stages
                          : parallel.virtual_hetero_pipeline_stages;
  if (!given.empty()) return std::accumulate(given.begin(), given.end(), int64_t{0});
  MT_CHECK_CONFIG(!parallel.num_layers_per_virtual_pipeline_stage,
                  "num-layers-per-virtual-pipeline-stage needs num-layers");
  return 2 * parallel.pipeline_model_parallel_size;
}

}  // namespace

void validate(const Options& options, Command command, int64_t world_size) {
  Mistakes mistakes;
  if (command == Command::kPretrain) validate_pretrain(options, world_size);
  if (command == Command::kSft) validate_sft(options, world_size);
  if (command == Command::kPreprocess) check_preprocess(options, mistakes);
  if (command == Command::kGenerate) check_generate(options, mistakes);
  if (command == Command::kChat) check_chat(options, mistakes);
  if (command == Command::kConvert) check_convert(options, mistakes);
  if (command == Command::kCompare) check_compare(options, mistakes);
  if (command == Command::kCompareLoss || command == Command::kPlot)
    check_curves(options, command, mistakes);
  mistakes.throw_if_any();
}

std::optional<RunFacts::Vocabulary> assumed_vocabulary(const Options& options,
                                                       const RunFacts& facts) {
  const bool is_model_told = !facts.model_folder.empty() && !facts.options_tell_model;
  const bool is_known = options.model.vocab_size || is_model_told;
  if (is_known || !options.model.model_family) return std::nullopt;
  switch (*options.model.model_family) {
    case ModelFamily::kDeepseek:
      return RunFacts::Vocabulary{.size = 128815, .base_size = 128000};
    case ModelFamily::kQwen:
      return RunFacts::Vocabulary{.size = 151669, .base_size = 151643};
    case ModelFamily::kLlama:
      return RunFacts::Vocabulary{.size = 128256, .base_size = 128000};
  }
  throw InternalError("a family without a release");
}

RunSpec resolve_run(const Options& asked, const RunFacts& facts) {
  const Options given =
      facts.kept_options ? with_recorded_schedule(asked, *facts.kept_options) : asked;
  Mistakes before;
  std::string overruled;
  const Options options = options_of_run(given, facts, before, &overruled);
  Resolution resolution = resolution_of_run(options, facts, {}, std::move(before));
  Mistakes& mistakes = resolution.mistakes();
  check_learning_rate(options, mistakes);
  check_split(options.data.split, mistakes);
  mistakes.check(options.tuning.lora_rank == 0 || !facts.model_folder.empty(), "lora-rank (",
                 options.tuning.lora_rank, ") needs load: the model that the updates are for");
  const int64_t vocabulary = resolution.spec().model.vocab_size;
  if (facts.tokenizer && resolution.knows_model())
    mistakes.check(facts.tokenizer->size <= vocabulary, "tokenizer-model: ", facts.tokenizer->size,
                   " tokens do not fit the model's vocabulary of ", vocabulary);
  RunSpec spec = resolution.take();
  fill_training(options, spec);
  spec.options = options_record(given);
  spec.remarks = start_remarks(options, spec);
  if (!overruled.empty())
    spec.remarks.push_back("use-checkpoint-args: the model that is loaded counts, " + overruled);
  if (const int64_t left_out = std::exchange(spec.model.num_mtp_layers, 0); left_out > 0) {
    spec.remarks.push_back(concat("the ", left_out, " multi-token-prediction layers of ",
                                  facts.model_folder.string(),
                                  " are not trained yet: checkpoints hold them as they are there"));
  }
  return spec;
}

RunSpec resolve_layout(const Options& given, const RunFacts& facts,
                       std::optional<int64_t> num_micro_batches) {
  Mistakes before;
  const Options options = options_of_run(given, facts, before);
  RunSpec spec = resolution_of_run(options, facts, num_micro_batches, std::move(before)).take();
  spec.model.num_mtp_layers = 0;
  return spec;
}

SimulationSpec resolve_simulation(const Options& given, RunFacts facts) {
  Mistakes needs;
  const Options options = options_of_run(given, facts, needs);
  check_simulate(options, needs);
  needs.throw_if_any();
  const SimulateOptions& asked = options.simulate;
  SimulationSpec simulation;
  simulation.communication = asked.communication;
  simulation.overlap_neighbours = asked.overlap_neighbours;
  simulation.hardware = options.runtime.hardware;
  simulation.draw = asked.draw;
  simulation.trace = options.report.trace;
  simulation.json = options.report.json;
  if (asked.cost == SimulatedCosts::kUnit) {
    simulation.pipeline =
        pipeline_settings(options.parallel, num_layers_of(options), *asked.num_micro_batches);
    return simulation;
  }
  facts.world_size = *options.runtime.world_size;
  simulation.run = resolution_of_run(options, facts, asked.num_micro_batches, {}).take();
  simulation.pipeline = simulation.run->pipeline;
  if (asked.dispatch_scheme) simulation.run->experts.scheme = *asked.dispatch_scheme;
  simulation.run->experts.lone_steps_wait = asked.lone_steps_wait;
  return simulation;
}

RunSpec resolve_slice(const Options& given, const ModelConfig& model) {
  Mistakes mistakes;
  const Options options = in_own_terms(given, mistakes);
  mistakes.throw_if_any();
  RunSpec spec;
  spec.model = model;
  const TrainingOptions& training = options.training;
  spec.batch = {training.seq_length, training.micro_batch_size, training.micro_batch_size, 1};
  spec.pipeline = pipeline_settings(options.parallel, model.num_layers, 1);
  fill_spec(options, spec);
  return spec;
}

Json options_record(const Options& options) {
  return options_to_json(options);
}

}  // namespace moetron
