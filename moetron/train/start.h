// Where a run begins: a fresh model, the weights of a Hugging Face directory, or a checkpoint to
// continue.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/stored_model.h"
#include "moetron/formats/companions.h"
#include "moetron/run/resolve.h"
#include "moetron/run/run_spec.h"

namespace moetron {

class Communicator;
class Tokenizer;

struct RunStart {
  std::optional<FoundCheckpoint> resume;  // continue it: weights, optimizer, step
  std::filesystem::path weights;          // else begin with these weights; empty: fresh ones
  // With low-rank updates: the model that they are for, where what is continued or loaded is an
  // adapter; and an adapter to begin with, in place of a fresh one.
  std::filesystem::path base;
  std::filesystem::path adapter;
  StoredModel stored;  // of `weights`: what is taken of them, and what no config.json tells
  std::filesystem::path tokenizer_folder;      // empty: none
  std::vector<CompanionFile> tokenizer_files;  // of that folder, as they were at the start
  std::shared_ptr<const Tokenizer> tokenizer;  // null where the run names none

  // Whose config.json is the model, unless `stored` tells it; empty: the options describe it.
  std::filesystem::path model_folder() const {
    if (!base.empty()) return base;
    return resume ? resume->folder : weights;
  }
};

// A valid checkpoint in --save wins over --load, said in one line. --load may be a Hugging Face
// directory (weights) or the --save folder of another run (all of it). InputError where there are
// checkpoints and none can be loaded; of --save, --restart moves them aside then (set_aside.h).
// Files that a manifest lists are read once, to check them. Collective over `world`.
RunStart find_start(const StartSpec& spec, Communicator& world);

// What resolve_run() must know of the model where a run begins, and of the tokenizer.
void tell_model(const RunStart& start, RunFacts& facts);

// The same as find_start() of a folder of weights, or an adapter, that is not continued.
RunStart start_with_weights(const StartSpec& spec, const std::filesystem::path& weights);
// Where `load` is a run's folder, its newest checkpoint; else `load`. InputError where it cannot be
// listed.
std::filesystem::path newest_weights(const std::filesystem::path& load);

// What find_start() would find of the model, as tell_model() tells it; its files are not checked,
// and nothing is changed. InputError where --save or --load cannot be listed.
void find_model(const StartSpec& spec, RunFacts& facts);

// Where the run names no tokenizer, the one of its model, if it has one; and the files of either.
void take_tokenizer_files(RunStart& start);

// The tokenizer of --tokenizer and --tokenizer-model, or null when neither was given.
std::shared_ptr<const Tokenizer> open_tokenizer(const TokenizerSpec& spec);
// The folder of its files; empty if none was named.
std::filesystem::path tokenizer_folder(const TokenizerSpec& spec);

}  // namespace moetron
