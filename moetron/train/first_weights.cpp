#include "moetron/train/first_weights.h"

#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/comm/communicator.h"
#include "moetron/models/model.h"

namespace moetron {

void load_base(const RunStart& start, Model& model, Communicator& world) {
  if (!start.base.empty()) load_weights(start.base, model.weights(), &world);
}

void load_first_weights(const RunStart& start, uint64_t seed, Model& model, Communicator& world) {
  if (start.weights.empty()) return model.initialize(seed);
  load_weights(start.weights, model.weights(), &world);
  if (!start.adapter.empty()) return load_adapter(start.adapter, model.adapter_weights(), &world);
  model.initialize_adapters(seed);
}

}  // namespace moetron
