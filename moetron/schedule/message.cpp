#include "moetron/schedule/message.h"

namespace moetron {
namespace {

bool has_message(ActionKind kind) {
  return kind != ActionKind::kBackwardWeight && kind != ActionKind::kReduce;
}

bool is_end(const Placement& placement, int stage) {
  return stage < 0 || stage >= placement.num_stages();
}

}  // namespace

std::optional<Message> needed_by(const Placement& placement, int rank, const Action& action) {
  if (!has_message(action.kind)) return {};
  const bool is_forward = action.kind == ActionKind::kForward;
  const int from = placement.stage(rank, action.chunk) + (is_forward ? -1 : 1);
  if (is_end(placement, from)) return {};
  return Message{is_forward, from, action.micro_batch};
}

std::optional<Message> made_by(const Placement& placement, int rank, const Action& action) {
  if (!has_message(action.kind)) return {};
  const bool is_forward = action.kind == ActionKind::kForward;
  const int stage = placement.stage(rank, action.chunk);
  if (is_end(placement, stage + (is_forward ? 1 : -1))) return {};
  return Message{is_forward, stage, action.micro_batch};
}

size_t place_of(const Message& message, int num_micro_batches) {
  const int place =
      (message.from_stage * 2 + message.is_forward) * num_micro_batches + message.micro_batch;
  return static_cast<size_t>(place);
}

int sender(const Placement& placement, const Message& message) {
  return placement.rank(message.from_stage);
}

int receiver(const Placement& placement, const Message& message) {
  return placement.rank(message.from_stage + (message.is_forward ? 1 : -1));
}

}  // namespace moetron
