#include "moetron/pipeline/stage_links.h"

#include <set>

#include "moetron/base/error.h"

namespace moetron {

StageLinks::StageLinks(Communicator& pipeline, const Placement& placement)
    : placement_(placement), rank_(pipeline.rank()) {
  MT_CHECK(pipeline.size() == placement.num_ranks(), "a pipeline of ", placement.num_ranks(),
           " ranks over a group of ", pipeline.size());
  std::set<Key> keys;  // in one order on every rank
  for (int stage = 0; stage + 1 < placement.num_stages(); ++stage) {
    const int upper = placement.rank(stage), lower = placement.rank(stage + 1);
    if (upper == lower) continue;
    keys.insert({upper, lower, true});
    keys.insert({lower, upper, false});
  }
  for (const Key& key : keys) {
    if (key.from != rank_ && key.to != rank_) continue;
    const std::string name =
        concat(key.is_forward ? "outputs " : "gradients ", key.from, " to ", key.to);
    links_[key] = pipeline.subgroup({key.from, key.to}, name);
  }
}

StageLinks::Key StageLinks::key_of(const Message& message) const {
  return {sender(placement_, message), receiver(placement_, message), message.is_forward};
}

void StageLinks::send(const Message& message, const at::Tensor& tensor) {
  links_.at(key_of(message))->send(tensor, /*peer=*/1);
}

Work StageLinks::receive(const Message& message, const at::Tensor& into) {
  return links_.at(key_of(message))->recv(into, /*peer=*/0);
}

Inbox::Inbox(const StepList& steps, StageLinks& links,
             std::function<at::Tensor(int micro_batch)> make_buffer)
    : links_(links), make_buffer_(std::move(make_buffer)) {
  const Placement& placement = links.placement();
  for (const Step& step : steps) {
    for (const Action& action : actions_of(step)) {
      const auto message = needed_by(placement, links.rank(), action);
      if (message && sender(placement, *message) != links.rank()) {
        line_of(*message).messages.push_back(*message);
      }
    }
  }
  for (auto& [key, line] : lines_) post(line);
}

Inbox::Line& Inbox::line_of(const Message& message) {
  return lines_[{sender(links_.placement(), message), message.is_forward}];
}

void Inbox::post(Line& line) {
  if (line.num_posted == line.messages.size()) return;
  const Message& message = line.messages[line.num_posted++];
  line.buffer = make_buffer_(message.micro_batch);
  line.work = links_.receive(message, line.buffer);
}

at::Tensor Inbox::take(const Message& message) {
  Line& line = line_of(message);
  MT_CHECK(line.num_posted > 0 && line.messages[line.num_posted - 1] == message,
           "a message is taken out of its order");
  line.work.wait();
  at::Tensor taken = std::exchange(line.buffer, {});
  post(line);
  return taken;
}

}  // namespace moetron
