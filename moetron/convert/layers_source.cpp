#include "moetron/convert/layers_source.h"

#include <map>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "moetron/arch/config_reader.h"
#include "moetron/arch/config_writer.h"

namespace moetron {

LayersSource::LayersSource(const TensorSource& source, const LayerRange& range)
    : ChosenTensors(source) {
  std::map<std::string, size_t> sorted;
  for (size_t i = 0; i < all().size(); ++i)
    if (auto name = name_in_range(all()[i].name, range)) sorted.emplace(std::move(*name), i);
  for (const auto& [name, place] : sorted) {
    SafetensorsTensor tensor = all()[place];
    tensor.name = name;
    choose(place, std::move(tensor));
  }
}

Json config_of_layers(const Json& config, const LayerRange& range, const std::string& place) {
  constexpr const char* kQuantization = "quantization_config";
  Json result = write_model_config(take_layers(read_model_config(config, place), range, place));
  if (config.contains(kQuantization)) result[kQuantization] = config.at(kQuantization);
  return result;
}

}  // namespace moetron
