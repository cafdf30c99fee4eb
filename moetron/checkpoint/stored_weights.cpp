#include "moetron/checkpoint/stored_weights.h"

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/convert/megatron_source.h"
#include "moetron/formats/companions.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

class HuggingFaceWeights final : public StoredWeights {
 public:
  explicit HuggingFaceWeights(const fs::path& folder) : files_(folder) {}

  std::vector<std::string> names() const override { return files_.names(); }
  const SafetensorsTensor* find(std::string_view name) const override {
    return files_.contains(name) ? &files_.at(name) : nullptr;
  }
  StoredBytes read(std::string_view name) const override { return {files_.bytes(name)}; }
  std::string place_of(std::string_view name) const override {
    return files_.file_of(name).string();
  }

 private:
  ModelFiles files_;
};

// A tensor is put together when it is read, from the files of all ranks that hold a part.
class MegatronWeights final : public StoredWeights {
 public:
  explicit MegatronWeights(const fs::path& folder)
      : folder_(folder), source_(folder, read_model_config(folder)) {}

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const SafetensorsTensor& tensor : source_.tensors()) names.push_back(tensor.name);
    return names;
  }
  const SafetensorsTensor* find(std::string_view name) const override {
    const size_t index = find_tensor(source_, name);
    return index < source_.tensors().size() ? &source_.tensors()[index] : nullptr;
  }
  StoredBytes read(std::string_view name) const override {
    StoredBytes read{.bytes = {}, .memory = read_whole(source_, find_tensor(source_, name))};
    read.bytes = read.memory;
    return read;
  }
  std::string place_of(std::string_view) const override { return folder_.string(); }

 private:
  fs::path folder_;
  MegatronSource source_;
};

}  // namespace

void check_tells_model(const fs::path& folder) {
  if (path_exists(folder / kConfigFile)) return;
  MT_CHECK_INPUT(!is_megatron_folder(folder), "load: ", folder.string(),
                 " holds Megatron's files, but no config.json: put the model's config.json and its "
                 "tokenizer beside them");
  throw InputError(
      concat("load: ", folder.string(), " holds neither a config.json nor a checkpoint"));
}

std::unique_ptr<StoredWeights> open_weights(const fs::path& folder) {
  MT_CHECK_INPUT(is_folder(folder), folder.string(), " is no folder");
  if (holds_adapter(folder)) return std::make_unique<HuggingFaceWeights>(folder / kAdapterFile);
  if (!holds_model_files(folder) && is_megatron_folder(folder))
    return std::make_unique<MegatronWeights>(folder);
  return std::make_unique<HuggingFaceWeights>(folder);
}

}  // namespace moetron
