#include "moetron/convert/convert_model.h"

#include <chrono>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/path.h"
#include "moetron/base/seconds_since.h"
#include "moetron/convert/converted_weights.h"
#include "moetron/convert/model_source.h"
#include "moetron/convert/new_folder.h"
#include "moetron/convert/verify_copy.h"
#include "moetron/convert/write_model.h"
#include "moetron/formats/manifest.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

uint64_t bytes_of(const TensorSource& weights) {
  uint64_t bytes = 0;
  for (const SafetensorsTensor& tensor : weights.tensors())
    bytes += tensor_bytes(tensor.dtype, tensor.shape).value_or(0);
  return bytes;
}

void write_small_files(const fs::path& folder, const Json& config, std::vector<CompanionFile> files,
                       std::vector<ManifestFile>& written) {
  files.push_back({kConfigFile, config.dump(2) + "\n"});
  for (const CompanionFile& file : files) {
    fs::create_directories((folder / file.name).parent_path());
    write_file(folder / file.name, file.text);
    written.push_back(hash_bytes(file.name, std::as_bytes(std::span(file.text))));
  }
}

std::function<void(uint64_t, uint64_t)> progress_of(const ConvertSettings& settings,
                                                    const char* what) {
  if (!settings.progress) return {};
  return [&settings, what](uint64_t done, uint64_t total) { settings.progress(what, done, total); };
}

}  // namespace

ConvertReport write_hf_model(const ModelContent& content, const fs::path& save,
                             const ConvertSettings& settings) {
  const auto begin = Clock::now();
  const ConvertedWeights converted(content, settings.dtype);
  const TensorSource& weights = converted.weights();
  ConvertReport report{.num_tensors = weights.tensors().size(), .bytes = bytes_of(weights)};
  NewFolder target(save, report.bytes);
  const fs::path& folder = target.path();
  std::vector<ManifestFile> written = write_model(
      weights, folder,
      {settings.shard_bytes, settings.num_threads, progress_of(settings, "writes block")});
  for (const ManifestFile& file : written) report.num_files += file.name != kIndexFile;
  write_small_files(folder, converted.config(), content.companions, written);
  write_manifest(folder, std::move(written), Json::object());
  report.seconds = seconds_since(begin);
  if (settings.verify) {
    verify_copy(weights, ModelSource(folder), settings.num_threads,
                progress_of(settings, "verifies block"));
    report.verify_seconds = seconds_since(begin) - report.seconds;
  }
  target.commit();
  return report;
}

LoadedModel read_model_folder(const fs::path& folder) {
  const fs::path path = folder / kConfigFile;
  LoadedModel model{.config = read_json(path), .place = path.string()};
  MT_CHECK_INPUT(model.config.is_object(), path.string(), " is no JSON object");
  model.companions = read_small_files(folder);
  return model;
}

std::vector<CompanionFile> read_small_files(const fs::path& folder) {
  std::vector<CompanionFile> files = read_tokenizer_files(folder);
  add_companions(files, read_model_companions(folder));
  return files;
}

LoadedModel open_hf_model(const fs::path& load) {
  MT_CHECK_INPUT(path_exists(load / kConfigFile), "load: ", load.string(), " holds no config.json");
  LoadedModel model = read_model_folder(load);
  model.weights = std::make_unique<ModelSource>(load);
  return model;
}

}  // namespace moetron
