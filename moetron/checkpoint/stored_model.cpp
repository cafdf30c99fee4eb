#include "moetron/checkpoint/stored_model.h"

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_shape.h"
#include "moetron/formats/companions.h"

namespace moetron {

namespace fs = std::filesystem;

StoredModel describe_stored(const fs::path& folder, const std::optional<LayerRange>& layers,
                            std::optional<int64_t> vocab_size) {
  StoredModel stored{.layers = layers, .config = {}};
  if (path_exists(folder / kConfigFile)) return stored;
  stored.config = model_from_args(folder, vocab_size);
  MT_CHECK_INPUT(stored.config || !layers, "load-layers (",
                 range_text(layers.value_or(LayerRange())),
                 ") needs to know the model that the layers are of: put its config.json into ",
                 folder.string());
  return stored;
}

std::optional<TakenModel> taken_model(const fs::path& folder, const StoredModel& stored) {
  if (!stored.layers && !stored.config) return std::nullopt;
  const std::string place =
      (stored.config ? arguments_file(folder) : folder / kConfigFile).string();
  const ModelConfig whole = stored.config ? *stored.config : read_model_config(folder);
  if (!stored.layers) return TakenModel{whole, concat("args of ", place)};
  return TakenModel{take_layers(whole, *stored.layers, place),
                    concat(place, " with load-layers (", range_text(*stored.layers), ")")};
}

}  // namespace moetron
