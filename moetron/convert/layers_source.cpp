#include "moetron/convert/layers_source.h"

#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "moetron/arch/config_reader.h"
#include "moetron/arch/config_writer.h"

namespace moetron {

LayersSource::LayersSource(const TensorSource& source, const LayerRange& range) : source_(source) {
  std::map<std::string, size_t> sorted;
  for (size_t i = 0; i < source.tensors().size(); ++i)
    if (auto name = name_in_range(source.tensors()[i].name, range))
      sorted.emplace(std::move(*name), i);
  for (const auto& [name, place] : sorted) {
    tensors_.push_back(source.tensors()[place]);
    tensors_.back().name = name;
    places_.push_back(place);
  }
}

Json config_of_layers(const Json& config, const LayerRange& range, const std::string& place) {
  constexpr const char* kQuantization = "quantization_config";
  Json result = write_model_config(take_layers(read_model_config(config, place), range, place));
  if (config.contains(kQuantization)) result[kQuantization] = config.at(kQuantization);
  return result;
}

}  // namespace moetron
