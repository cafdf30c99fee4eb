// What travels between ranks: it follows from the placement, no list holds it.
#pragma once

#include <optional>

#include "moetron/schedule/schedule.h"

namespace moetron {

// The output of a forward, or the input gradient of a backward, on its way to the next stage in its
// direction. Between chunks of one rank nothing is sent.
struct Message {
  bool is_forward = true;
  int from_stage = 0;
  int micro_batch = 0;

  bool operator==(const Message&) const = default;
};

// What an action of `rank` waits for from another stage; none at the ends of the pipeline.
std::optional<Message> needed_by(const Placement& placement, int rank, const Action& action);
// What it makes for others; none at the ends.
std::optional<Message> made_by(const Placement& placement, int rank, const Action& action);

// Numbers the messages of a schedule of so many micro-batches from 0, below twice stages times
// micro-batches: their places in a table.
size_t place_of(const Message& message, int num_micro_batches);

int sender(const Placement& placement, const Message& message);
int receiver(const Placement& placement, const Message& message);

// The one or two actions of a step, in their order.
class ActionsOfStep {
 public:
  explicit ActionsOfStep(const Step& step)
      : actions_{step.action, step.beside.value_or(Action{})}, count_(step.beside ? 2 : 1) {}
  const Action* begin() const { return actions_; }
  const Action* end() const { return actions_ + count_; }

 private:
  Action actions_[2];
  int count_;
};
inline ActionsOfStep actions_of(const Step& step) {
  return ActionsOfStep(step);
}

}  // namespace moetron
