// From options to what they mean. Mistakes are told together, in one ConfigError with a line for
// each, which names the options and their values. Only this folder, config/ and the commands know
// what is in Options; whoever else passes them on cannot look inside.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "moetron/run/run_spec.h"

namespace moetron {

struct Options;
enum class Command;

// Refuses what needs no model file, no data and no other rank to be known for wrong; of pretrain
// the whole run as far as the options tell it. Of a run that begins anew that is all of it, but for
// the vocabulary of a tokenizer. world_size: ranks of the run. Throws ConfigError.
void validate(const Options& options, Command command, int64_t world_size);

StartSpec resolve_start(const Options& options);
DataSpec resolve_data(const Options& options);
LrSchedule resolve_learning_rate(const Options& options);
// {"optimizer": {"lr": 1e-4, ...}, ...}: what a checkpoint notes, and what ranks must agree on.
Json options_record(const Options& options);

// What a run finds where it begins.
struct RunFacts {
  int64_t world_size = 1;
  std::filesystem::path model_folder;  // whose config.json is the model; empty: a fresh model
  // The model of model_folder where its config.json does not tell it: some layers of a larger one,
  // or Megatron's files without a config.json.
  struct ToldModel {
    ModelConfig config;
    std::string place;  // what complaints name
  };
  std::optional<ToldModel> told_model;
  // model_folder holds weights, and neither a config.json nor anything else that tells of them.
  bool options_tell_model = false;
  struct Vocabulary {
    int64_t size = 0;
    int64_t base_size = 0;  // without added tokens
  };
  std::optional<Vocabulary> tokenizer;  // empty: the run has none
  // The options_record() whose learning rates and weight decay count in place of those that are
  // given; empty: none.
  std::optional<Json> kept_options;
};
// What the vocabulary of a fresh model is taken for where its tokenizer is not here: that of the
// family's release (DeepSeek-V3, Qwen3, Llama 3). Empty where options or a model tell it, or nobody
// the family.
std::optional<RunFacts::Vocabulary> assumed_vocabulary(const Options& options,
                                                       const RunFacts& facts);

// Throws ConfigError, or InputError for a config.json that cannot be read.
RunSpec resolve_run(const Options& given, const RunFacts& facts);

// The same without what trains: of a run that is planned, whose learning rate and data may be given
// later. `num_micro_batches`: of a step; empty: the batch sizes say.
RunSpec resolve_layout(const Options& options, const RunFacts& facts,
                       std::optional<int64_t> num_micro_batches = {});

// Of `moetron simulate`, with the resolution of a run; of the facts the model's alone count, where
// costs are a model's. Throws as resolve_run().
SimulationSpec resolve_simulation(const Options& given, RunFacts facts = {});

// A model that is given, on one rank, with one micro-batch: for benchmarks.
RunSpec resolve_slice(const Options& given, const ModelConfig& model);

}  // namespace moetron
