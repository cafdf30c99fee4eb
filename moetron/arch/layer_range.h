// Some layers of a model, in a row, as a model of their own: --load-layers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "moetron/arch/model_config.h"

namespace moetron {

// Layers first .. last, both among them.
struct LayerRange {
  int64_t first = 0;
  int64_t last = 0;

  int64_t count() const { return last - first + 1; }
  bool operator==(const LayerRange&) const = default;
};

// "0-6". ConfigError, naming the option load-layers, for anything else.
LayerRange parse_layer_range(const std::string& text);
std::string range_text(const LayerRange& range);

// The model of those layers alone, numbered from 0, between the whole one's embedding, last norm
// and head; without layers of multi-token prediction, which stand behind its last layer. `place`:
// the file that tells of the whole model. ConfigError, naming option and file, where that has no
// such layers, or where they would be of another kind under their new numbers.
ModelConfig take_layers(ModelConfig config, const LayerRange& range, const std::string& place);

// "model.layers.12.mlp.gate.weight": the layer, and ".mlp.gate.weight". Nothing for the name of no
// layer's tensor.
struct LayerName {
  int64_t layer = 0;
  std::string_view rest;  // of the name that was given
};
std::optional<LayerName> layer_name(std::string_view tensor);

// What the tensor of the whole model is called in that of the layers; nothing where it is in none
// of them. Names of no layer stay.
std::optional<std::string> name_in_range(std::string_view name, const LayerRange& range);

}  // namespace moetron
