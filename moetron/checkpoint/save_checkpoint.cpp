#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string_view>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/hash.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/tensor_file.h"
#include "moetron/formats/manifest.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// Everything that a Hugging Face tokenizer may consist of.
constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
};

struct SmallFile {
  std::string name;
  std::string text;
};

// All files of a checkpoint but the manifest, known before the first is written.
struct Plan {
  std::vector<TensorFile> tensor_files;
  std::vector<SmallFile> small_files;

  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const TensorFile& file : tensor_files) sum += file.layout.file_bytes;
    for (const SmallFile& file : small_files) sum += file.text.size();
    return sum;
  }
};

// A tokenizer that has gone missing must not cost the run its checkpoint: it is a warning.
void add_tokenizer_files(const fs::path& folder, Plan& plan) {
  const size_t before = plan.small_files.size();
  for (const char* name : kTokenizerFiles) {
    if (fs::is_regular_file(folder / name)) {
      plan.small_files.push_back({name, read_file(folder / name)});
    }
  }
  if (plan.small_files.size() == before) {
    log_warning(concat("the checkpoint gets no tokenizer: ", folder.string(), " holds none"));
  }
}

Plan make_plan(const CheckpointContent& content, const SaveSettings& settings) {
  Plan plan;
  plan.tensor_files = plan_model_files(content.weights, settings.shard_bytes);
  plan.tensor_files.push_back(plan_file(kOptimizerFile, content.states));
  plan.small_files.push_back({kConfigFile, content.config});
  if (!content.generation_config.empty()) {
    plan.small_files.push_back({kGenerationConfigFile, content.generation_config});
  }
  if (!content.tokenizer_folder.empty()) add_tokenizer_files(content.tokenizer_folder, plan);
  plan.small_files.push_back({kTrainerFile, content.trainer});
  return plan;
}

// The index of shards; nothing where one file holds all weights.
void write_index(const fs::path& folder, const std::vector<TensorFile>& files) {
  SafetensorsIndex index;
  for (const TensorFile& file : files) {
    if (file.name == kOptimizerFile || file.name == shard_file_name(0, 1)) continue;
    for (const SafetensorsEntry& tensor : file.layout.tensors) {
      index.weight_map[tensor.name] = file.name;
      index.total_size += tensor.bytes;
    }
  }
  if (!index.weight_map.empty()) write_safetensors_index(folder / kIndexFile, index);
}

ManifestFile write_small_file(const fs::path& folder, const SmallFile& file) {
  write_file(folder / file.name, file.text);
  ManifestFile entry{file.name, file.text.size(), {}};
  const auto bytes = std::as_bytes(std::span(file.text.data(), file.text.size()));
  for (uint64_t begin = 0; begin < bytes.size(); begin += kManifestBlockBytes) {
    const uint64_t count = std::min<uint64_t>(kManifestBlockBytes, bytes.size() - begin);
    entry.blocks.push_back(hash_hex(bytes.subspan(begin, count)));
  }
  return entry;
}

void check_space(const fs::path& save, uint64_t needed) {
  const uint64_t available = fs::space(save).available;
  MT_CHECK_CONFIG(needed <= available, "cannot save to ", save.string(), ": the checkpoint needs ",
                  needed, " bytes, ", available, " are free");
}

void write_all(const fs::path& folder, const Plan& plan, int64_t step) {
  fs::create_directories(folder / "state");
  std::vector<ManifestFile> files;
  for (const TensorFile& file : plan.tensor_files) {
    files.push_back(write_tensor_file(folder, file));
  }
  for (const SmallFile& file : plan.small_files) files.push_back(write_small_file(folder, file));
  write_index(folder, plan.tensor_files);
  if (fs::exists(folder / kIndexFile)) files.push_back(hash_file(folder, kIndexFile));
  sync_folder(folder / "state");
  write_manifest(folder, std::move(files), {{"step", step}});
  sync_folder(folder);
}

// Puts the finished folder in its place. One that is there is exchanged in one step where the file
// system can, so that a kill leaves the old or the new one.
void move_into_place(const fs::path& temporary, const fs::path& folder) {
  if (!fs::exists(folder)) return rename_durable(temporary, folder);
  const bool exchanged =
      ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0;
  if (exchanged) {
    sync_folder(folder.parent_path());
    fs::remove_all(temporary);
    return;
  }
  fs::remove_all(folder);
  rename_durable(temporary, folder);
}

void save_here(const fs::path& save, int64_t step, const CheckpointContent& content,
               const SaveSettings& settings) {
  const fs::path temporary = temporary_folder(save, step);
  try {
    fs::create_directories(save);
    remove_leftovers(save);
    const Plan plan = make_plan(content, settings);
    check_space(save, plan.bytes());
    write_all(temporary, plan, step);
    move_into_place(temporary, checkpoint_folder(save, step));
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw ConfigError(concat("cannot save to ", save.string(), ": ", error.code().message()));
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
}

}  // namespace

fs::path save_checkpoint(const fs::path& save, int64_t step, const CheckpointContent& content,
                         Communicator* world, const SaveSettings& settings) {
  on_rank_zero(world, [&] {
    save_here(save, step, content, settings);
    return step;
  });
  return checkpoint_folder(save, step);
}

}  // namespace moetron
