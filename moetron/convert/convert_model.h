// moetron convert: a model directory from another.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/json.h"
#include "moetron/config/model_formats.h"
#include "moetron/convert/tensor_source.h"
#include "moetron/formats/companions.h"

namespace moetron {

struct ConvertSettings {
  WeightDtype dtype = WeightDtype::kStored;
  uint64_t shard_bytes = 5'000'000'000;  // of tensors in a file
  int num_threads = 1;
  bool verify = false;  // reads the result again, and compares it bit for bit
  // Pieces that are done of so many, and what is done to them ("writes block", "verifies block"):
  // called by one thread at a time.
  std::function<void(const char* what, uint64_t done, uint64_t total)> progress = {};
};

struct ConvertReport {
  uint64_t num_tensors = 0;
  uint64_t bytes = 0;  // of all tensors that were written
  int num_files = 0;   // that hold them
  double seconds = 0;
  double verify_seconds = 0;
};

// A model of whatever format, as a Hugging Face directory would hold it.
struct ModelContent {
  const TensorSource& weights;  // not in 8 bits, unless config says so
  const Json& config;
  std::vector<CompanionFile> companions;
  std::string place;  // begins complaints
};

// A model that was opened, whatever its format.
struct LoadedModel {
  std::unique_ptr<TensorSource> weights = nullptr;
  Json config = {};
  std::vector<CompanionFile> companions = {};
  std::string place;                       // begins complaints
  std::vector<std::string> left_out = {};  // tensors of an optimizer

  // Refers to this.
  ModelContent content() const { return {*weights, config, companions, place}; }
};

// What a folder holds beside the weights, which are null: config.json, which is there, and the
// tokenizer's and the model's small files. InputError where it is damaged.
LoadedModel read_model_folder(const std::filesystem::path& folder);
// The small files alone.
std::vector<CompanionFile> read_small_files(const std::filesystem::path& folder);

// A Hugging Face model directory.
LoadedModel open_hf_model(const std::filesystem::path& load);

// Writes a Hugging Face model directory with a manifest. It appears whole or not at all: `save`
// must not be there, or be an empty folder, and is renamed from a hidden folder beside it in the
// end. ConfigError where it cannot be written, where it is there already, or where the disk has too
// little room; InputError for damaged weights.
ConvertReport write_hf_model(const ModelContent& content, const std::filesystem::path& save,
                             const ConvertSettings& settings);

}  // namespace moetron
