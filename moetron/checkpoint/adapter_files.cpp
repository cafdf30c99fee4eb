#include "moetron/checkpoint/adapter_files.h"

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/formats/companions.h"

namespace moetron {

namespace fs = std::filesystem;

bool holds_adapter(const fs::path& folder) {
  return !folder.empty() && path_exists(folder / kAdapterConfigFile);
}

fs::path base_of_adapter(const fs::path& folder, const std::string& given) {
  if (!given.empty()) {
    MT_CHECK_INPUT(path_exists(fs::path(given) / kConfigFile), "base: ", given,
                   " holds no config.json");
    return given;
  }
  const fs::path file = folder / kAdapterConfigFile;
  const fs::path base = read_adapter_base(read_json(file), file.string());
  MT_CHECK_INPUT(!base.empty() && path_exists(base / kConfigFile), file.string(),
                 ": base_model_name_or_path (", base.string(),
                 ") is no model directory here; name one with --base");
  return base;
}

AdapterConfig read_adapter_config(const fs::path& folder, const ModelConfig& model) {
  const fs::path file = folder / kAdapterConfigFile;
  return read_adapter_config(read_json(file), model, file.string());
}

std::vector<int64_t> shape_in_file(std::string_view name,
                                   const std::vector<int64_t>& global_shape) {
  if (global_shape.size() != 3 || !name.ends_with(".lora_B.weight")) return global_shape;
  return {global_shape[0], global_shape[1] * global_shape[2]};
}

void load_adapter(const fs::path& folder, const std::vector<NamedSlice>& slices,
                  Communicator* world) {
  const LoadReport report = load_weights(folder, slices, world);
  MT_CHECK_INPUT(report.unused.empty(), folder.string(), " holds ", report.unused.size(),
                 " tensors that its targets do not have, the first is ", report.unused.front());
}

}  // namespace moetron
