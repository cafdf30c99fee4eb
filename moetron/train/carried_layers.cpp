#include "moetron/train/carried_layers.h"

#include "moetron/arch/config_reader.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/comm/communicator.h"

namespace moetron {
namespace {

// Of the model before it was told to leave them out.
int64_t num_stored_layers(const RunStart& start, const ModelConfig& model) {
  if (start.stored.config) return start.stored.config->num_mtp_layers;
  return model.source.is_null() ? 0 : read_model_config(model.source, "config.json").num_mtp_layers;
}

}  // namespace

CarriedTensors carry_layers(const RunStart& start, const RunSpec& spec, Communicator& world) {
  CarriedTensors carried;
  const std::filesystem::path folder = start.resume ? start.resume->folder : start.weights;
  const bool has_whole_model = !folder.empty() && !spec.lora && !start.stored.layers;
  const int64_t count = has_whole_model ? num_stored_layers(start, spec.model) : 0;
  if (count == 0) return carried;
  on_all_ranks(&world, [&] {
    carried = CarriedTensors(folder, start.resume ? StoredModel{} : start.stored,
                             spec.model.num_layers, count, world.rank(), world.size());
    return 0;
  });
  return carried;
}

ModelConfig with_carried(ModelConfig model, const CarriedTensors& carried) {
  model.num_mtp_layers = carried.num_layers();
  return model;
}

}  // namespace moetron
