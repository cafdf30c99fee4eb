// Some layers of a model, as a model of their own.
#pragma once

#include "moetron/arch/layer_range.h"
#include "moetron/convert/chosen_tensors.h"
#include "moetron/convert/convert_model.h"

namespace moetron {

// The tensors of those layers under their new numbers, and what is in no layer.
class LayersSource : public ChosenTensors {
 public:
  // `source` outlives this.
  LayersSource(const TensorSource& source, const LayerRange& range);
};

// The config of those layers alone, which keeps the quantization of the weights. ConfigError as
// take_layers().
Json config_of_layers(const Json& config, const LayerRange& range, const std::string& place);

}  // namespace moetron
