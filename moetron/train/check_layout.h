// --check-layout of pretrain and sft: one step of a shrunken run in its layout, on threads of this
// process, against the same step on one rank.
#pragma once

#include <functional>
#include <string>

#include "moetron/run/run_spec.h"

namespace moetron {

class Communicator;
class Model;

struct FarthestTensor {
  double difference = 0;  // relative_difference() of train/whole_tensors.h
  std::string name;       // empty: nothing differs
};

struct LayoutCheck {
  RunSpec asked, shrunk;
  double loss_difference = 0;  // over the loss
  FarthestTensor gradient, parameter;
  std::string other_bits;  // the first that differs from the layout without a pipeline; empty: none
  std::string failure;     // one sentence, naming the tensor; empty: all is within rounding
};

// Changes what trains in the asked layout, on each of its ranks: for tests.
using ChangeModel = std::function<void(Model& model, Communicator& world)>;

// Throws ConfigError, one sentence, where the layout does not train at all.
//
// Where routers chose differently, scores were so close that rounding decided between them, or the
// layout is wrong: then another seed is tried, up to three.
LayoutCheck check_layout(const RunSpec& run, const ChangeModel& change_model = {});

// What was checked, and the differences; some lines for people.
std::string describe(const LayoutCheck& check);

// Checks and prints. Throws ConfigError with the failure, if there is one.
void run_layout_check(const RunSpec& run);

}  // namespace moetron
