// What crosses the borders between the stages of a pipeline: as many slots as the programs of the
// layers on both sides have, of the widths and types that the model says. The executor receives by
// this description (pipeline/executor.h), the planner counts a message's bytes by it
// (plan/model_costs.h).
#pragma once

#include <cstdint>
#include <vector>

#include "moetron/arch/model_config.h"
#include "moetron/config/choices.h"
#include "moetron/schedule/layer_program.h"

namespace moetron {

// Of a slot that one layer hands on to the next.
struct SlotShape {
  SlotType type = SlotType::kTokens;
  int64_t width = 0;  // of a row
  Dtype dtype = Dtype::kAuto;
};
// By output slot of a layer, which are the input slots of the next.
using HandedOn = std::vector<SlotShape>;

// What each stage but the last sends to the next, by stage; gradients are tensors like the data.
using StageBorders = std::vector<HandedOn>;

// What every layer of the model but the head hands on: hidden states alone.
HandedOn handed_on(const ModelConfig& model, Dtype dtype);

// Of a message of so many rows; kAuto counts as bf16.
double bytes_of(const HandedOn& slots, double rows);

// Throws InternalError unless `slots` of `program`, its inputs or outputs, are those, and of
// types whose size the receiver knows: tokens.
void check_handed_on(const HandedOn& handed_on, const LayerProgram& program,
                     const std::vector<Slot>& slots);

}  // namespace moetron
