#include "moetron/checkpoint/stored_model.h"

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_shape.h"
#include "moetron/formats/companions.h"

namespace moetron {

namespace fs = std::filesystem;

std::optional<int64_t> megatron_iteration(const fs::path& folder, std::optional<int64_t> step) {
  const bool is_megatrons =
      step && !path_exists(checkpoint_folder(folder, *step)) && holds_iteration(folder, *step);
  return is_megatrons ? step : std::nullopt;
}

StoredModel describe_stored(const fs::path& folder, const std::optional<LayerRange>& layers,
                            std::optional<int64_t> vocab_size, std::optional<int64_t> iteration) {
  StoredModel stored{.layers = layers, .config = {}, .iteration = iteration};
  if (path_exists(folder / kConfigFile)) return stored;
  stored.config = model_from_args(folder, vocab_size, iteration);
  MT_CHECK_INPUT(stored.config || !layers, "load-layers (",
                 range_text(layers.value_or(LayerRange())),
                 ") needs to know the model that the layers are of: put its config.json into ",
                 folder.string());
  return stored;
}

std::optional<TakenModel> taken_model(const fs::path& folder, const StoredModel& stored) {
  if (!stored.layers && !stored.config) return std::nullopt;
  const std::string place =
      (stored.config ? arguments_file(folder, stored.iteration) : folder / kConfigFile).string();
  const ModelConfig whole = stored.config ? *stored.config : read_model_config(folder);
  if (!stored.layers) return TakenModel{whole, concat("args of ", place)};
  return TakenModel{take_layers(whole, *stored.layers, place),
                    concat(place, " with load-layers (", range_text(*stored.layers), ")")};
}

}  // namespace moetron
