// What a run's checkpoints hold beside what it trains.
#pragma once

#include "moetron/checkpoint/carried_tensors.h"
#include "moetron/run/run_spec.h"
#include "moetron/train/start.h"

namespace moetron {

class Communicator;

// The layers of multi-token prediction of the model that a run begins or goes on with, as they are
// there; none of a run of low-rank updates, whose checkpoints hold no model, and of one that takes
// some layers of its model alone. Collective: an InputError of one rank is thrown by all.
CarriedTensors carry_layers(const RunStart& start, const RunSpec& spec, Communicator& world);

// The model of a checkpoint that holds them, too.
ModelConfig with_carried(ModelConfig model, const CarriedTensors& carried);

}  // namespace moetron
