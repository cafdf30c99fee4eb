#include "moetron/train/model_files.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "moetron/arch/adapter_config.h"
#include "moetron/arch/config_writer.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/train/start.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

bool names_end_tokens(const fs::path& model_folder) {
  if (model_folder.empty() || !path_exists(model_folder / kConfigFile)) return false;
  const Json config = read_json(model_folder / kConfigFile);
  return config.is_object() && !config.value("eos_token_id", Json()).is_null();
}

bool contains(const std::vector<CompanionFile>& files, const char* name) {
  return std::any_of(files.begin(), files.end(), [&](const auto& f) { return f.name == name; });
}

}  // namespace

std::string model_config_text(const ModelConfig& model, const char* dtype,
                              const std::vector<CompanionFile>& files) {
  ModelConfig config = model;
  config.dtype = dtype;
  Json written = write_model_config(config);
  drop_missing_code(written, files);
  return written.dump(2) + "\n";
}

std::string adapter_config_text(const RunSpec& spec, const RunStart& start) {
  const fs::path base = fs::absolute(start.model_folder()).lexically_normal();
  return write_adapter_config({*spec.lora, base.string()}, spec.model).dump(2) + "\n";
}

std::vector<CompanionFile> collect_tokenizer_files(const RunStart& start) {
  const fs::path model_folder = start.model_folder();
  // Without a tokenizer of its own, a run keeps the model's, even one that it cannot read.
  const bool has_own = start.tokenizer != nullptr;
  return has_own || model_folder.empty() ? start.tokenizer_files
                                         : read_tokenizer_files(model_folder);
}

std::vector<CompanionFile> collect_model_files(const RunStart& start) {
  const fs::path model_folder = start.model_folder();
  std::vector<CompanionFile> files = collect_tokenizer_files(start);
  if (!model_folder.empty()) add_companions(files, read_model_companions(model_folder));
  const bool needs_end = !contains(files, kGenerationConfigFile) && !names_end_tokens(model_folder);
  if (needs_end && start.tokenizer != nullptr && start.tokenizer->eos_id()) {
    const Json config = {{"eos_token_id", *start.tokenizer->eos_id()}};
    files.push_back({kGenerationConfigFile, config.dump(2) + "\n"});
  }
  return files;
}

}  // namespace moetron
