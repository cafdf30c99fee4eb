#include "moetron/pipeline/stage_links.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {

void connect(Communicator& pair, int from, c10::Device device) {
  const at::Tensor message = at::zeros({1}, device);
  const int peer = 1 - pair.rank();
  (pair.rank() == from ? pair.send(message, peer) : pair.recv(message, peer)).wait();
}

StageLinks::StageLinks(Communicator& pipeline, const Placement& placement, c10::Device device)
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
    connect(*links_[key], /*from=*/0, device);
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

void Inbox::begin(const Message& message) {
  const at::Tensor buffer = make_buffer_(message.micro_batch);
  under_way_.push_back({message, buffer, links_.receive(message, buffer)});
}

at::Tensor Inbox::take(const Message& message) {
  const auto found =
      std::find_if(under_way_.begin(), under_way_.end(),
                   [&](const Receive& receive) { return receive.message == message; });
  MT_CHECK(found != under_way_.end(), "a message is asked for that nobody began to receive");
  found->work.wait();
  at::Tensor taken = std::move(found->buffer);
  under_way_.erase(found);
  return taken;
}

}  // namespace moetron
