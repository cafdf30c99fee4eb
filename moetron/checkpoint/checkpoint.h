// Checkpoints (DESIGN: idea 3 and section 6). SAVE/step_0000100/ is a Hugging Face model directory
// (config.json, model.safetensors or shards with an index, tokenizer files) with the subfolder
// state/ (optimizer.safetensors, trainer.json) and manifest.json, which lists size and hashes of
// every file. It appears whole or not at all: files are written and fsynced in a hidden temporary
// folder, which is renamed last. Nothing in it depends on how the run was laid out over ranks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "moetron/autograd/parameter.h"
#include "moetron/base/json.h"

namespace moetron {

class Communicator;

struct CheckpointContent {
  std::string config;                      // text of config.json
  std::string generation_config;           // text of generation_config.json; empty: no such file
  std::filesystem::path tokenizer_folder;  // its tokenizer files are copied; empty: none
  std::vector<NamedSlice> weights;         // together they cover every tensor that they name
  std::vector<NamedSlice> states;          // "exp_avg.NAME", "exp_avg_sq.NAME", "master.NAME"
  std::string trainer;                     // text of state/trainer.json
};

struct SaveSettings {
  uint64_t shard_bytes = 5'000'000'000;  // weights beyond this are split into several files
};

// SAVE/step_0000100.
std::filesystem::path checkpoint_folder(const std::filesystem::path& save, int64_t step);

// Writes the checkpoint of `step` and returns its folder. One that is there already is replaced.
// Collective over `world` (null: a single rank): rank 0 writes what it holds, the others wait, and
// every rank throws when rank 0 failed. A place that is full or cannot be written is a ConfigError;
// what was there before stays as it was, and nothing temporary is left.
std::filesystem::path save_checkpoint(const std::filesystem::path& save, int64_t step,
                                      const CheckpointContent& content, Communicator* world,
                                      const SaveSettings& settings = {});

struct FoundCheckpoint {
  std::filesystem::path folder;
  int64_t step = 0;
};

// The newest checkpoint in `save` whose manifest, sizes and hashes are right; none where the folder
// is missing or holds none. Each newer but damaged one costs one warning that names file and
// reason. Collective over `world`: rank 0 looks.
std::optional<FoundCheckpoint> find_latest(const std::filesystem::path& save, Communicator* world);

// Throws InputError, naming file and reason, unless `folder` is a checkpoint whose every file has
// its size (cheap; hashes are find_latest's business).
void check_checkpoint(const std::filesystem::path& folder);

// Fills `weights` and `states` (either may be empty) from a checkpoint and returns trainer.json.
// Every slice must be in the files, with its global shape; InputError names file, tensor and both
// shapes. Precision is kept where the run's type differs from the saver's: an fp32 weight is read
// from its master if there is one, and a master that was not saved is read from the weight.
Json load_checkpoint(const std::filesystem::path& folder, const std::vector<NamedSlice>& weights,
                     const std::vector<NamedSlice>& states);

// Deletes all but the newest `keep` checkpoints of `save`, damaged ones included. Call it on one
// rank, after a save; `keep` is at least 1.
void remove_old_checkpoints(const std::filesystem::path& save, int64_t keep);

}  // namespace moetron
