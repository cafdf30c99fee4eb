#include "moetron/checkpoint/stored_weights.h"

#include <functional>
#include <map>
#include <utility>

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_source.h"
#include "moetron/convert/torch_dist_source.h"
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

// Of Megatron's formats. A tensor is put together when it is read, from all files that hold a part.
class SourceWeights final : public StoredWeights {
 public:
  SourceWeights(fs::path folder, std::unique_ptr<TensorSource> source)
      : folder_(std::move(folder)), source_(std::move(source)) {}

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const SafetensorsTensor& tensor : source_->tensors()) names.push_back(tensor.name);
    return names;
  }
  const SafetensorsTensor* find(std::string_view name) const override {
    const size_t index = find_tensor(*source_, name);
    return index < source_->tensors().size() ? &source_->tensors()[index] : nullptr;
  }
  StoredBytes read(std::string_view name) const override {
    StoredBytes read{.bytes = {}, .memory = read_whole(*source_, find_tensor(*source_, name))};
    read.bytes = read.memory;
    return read;
  }
  std::string place_of(std::string_view) const override { return folder_.string(); }

 private:
  fs::path folder_;
  std::unique_ptr<TensorSource> source_;
};

// Some layers of others, under new numbers.
class LayersOfWeights final : public StoredWeights {
 public:
  LayersOfWeights(std::unique_ptr<StoredWeights> whole, const LayerRange& range)
      : whole_(std::move(whole)) {
    for (const std::string& name : whole_->names())
      if (auto renamed = name_in_range(name, range)) {
        SafetensorsTensor tensor = *whole_->find(name);
        tensor.name = *renamed;
        tensors_.emplace(std::move(*renamed), Entry{name, std::move(tensor)});
      }
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, entry] : tensors_) names.push_back(name);
    return names;
  }
  const SafetensorsTensor* find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second.tensor;
  }
  StoredBytes read(std::string_view name) const override {
    return whole_->read(tensors_.find(name)->second.stored_name);
  }
  std::string place_of(std::string_view name) const override {
    return whole_->place_of(tensors_.find(name)->second.stored_name);
  }

 private:
  struct Entry {
    std::string stored_name;
    SafetensorsTensor tensor;
  };

  std::unique_ptr<StoredWeights> whole_;
  std::map<std::string, Entry, std::less<>> tensors_;
};

std::unique_ptr<StoredWeights> open_all(const fs::path& folder, const StoredModel& stored) {
  MT_CHECK_INPUT(is_folder(folder), folder.string(), " is no folder");
  if (holds_adapter(folder)) return std::make_unique<HuggingFaceWeights>(folder / kAdapterFile);
  const std::optional<int64_t> step = stored.iteration;
  const bool is_sharded = is_torch_dist_folder(step ? find_iteration(folder, step) : folder);
  const bool is_megatron = is_sharded || step || is_megatron_folder(folder);
  if (holds_model_files(folder) || !is_megatron)
    return std::make_unique<HuggingFaceWeights>(folder);
  const ModelConfig config = stored.config ? *stored.config : read_model_config(folder);
  std::unique_ptr<TensorSource> source;
  if (is_sharded)
    source = std::make_unique<TorchDistSource>(folder, config, step);
  else
    source = std::make_unique<MegatronSource>(folder, config, step);
  return std::make_unique<SourceWeights>(folder, std::move(source));
}

}  // namespace

void check_holds_model(const fs::path& folder) {
  const bool holds_one = path_exists(folder / kConfigFile) || is_torch_dist_folder(folder) ||
                         is_megatron_folder(folder);
  MT_CHECK_INPUT(holds_one, "load: ", folder.string(),
                 " holds neither a config.json nor a checkpoint");
}

std::unique_ptr<StoredWeights> open_weights(const fs::path& folder, const StoredModel& stored) {
  std::unique_ptr<StoredWeights> all = open_all(folder, stored);
  if (!stored.layers) return all;
  return std::make_unique<LayersOfWeights>(std::move(all), *stored.layers);
}

}  // namespace moetron
