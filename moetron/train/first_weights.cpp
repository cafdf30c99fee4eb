#include "moetron/train/first_weights.h"

#include "moetron/base/path.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/comm/communicator.h"
#include "moetron/formats/companions.h"
#include "moetron/models/model.h"

namespace moetron {

void load_base(const RunStart& start, Model& model, Communicator& world) {
  if (!start.base.empty()) load_weights(start.base, model.weights(), &world);
}

namespace {

// Of Megatron's files that tell no model, the run's: its options described it.
StoredModel stored_model(const RunStart& start, const Model& model) {
  StoredModel stored = start.stored;
  const bool is_told = stored.config || path_exists(start.weights / kConfigFile);
  if (!is_told) stored.config = model.config();
  return stored;
}

}  // namespace

void load_first_weights(const RunStart& start, uint64_t seed, Model& model, Communicator& world) {
  if (start.weights.empty()) return model.initialize(seed);
  load_weights(start.weights, model.weights(), &world, stored_model(start, model));
  if (!start.adapter.empty()) return load_adapter(start.adapter, model.adapter_weights(), &world);
  model.initialize_adapters(seed);
}

}  // namespace moetron
