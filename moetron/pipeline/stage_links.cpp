#include "moetron/pipeline/stage_links.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

std::vector<at::Tensor> tensors_of(const std::vector<Value>& values) {
  std::vector<at::Tensor> tensors;
  for (const Value& value : values) {
    tensors.push_back(value.data);
    if (value.scales.defined()) tensors.push_back(value.scales);
  }
  return tensors;
}

}  // namespace

void connect(Communicator& pair, int from, c10::Device device) {
  const at::Tensor message = at::zeros({1}, device);
  const int peer = 1 - pair.rank();
  (pair.rank() == from ? pair.send(message, peer) : pair.recv(message, peer)).wait();
}

StageLinks::StageLinks(Communicator& pipeline, const Placement& placement, c10::Device device)
    : placement_(placement), rank_(pipeline.rank()), device_(device) {
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

void StageLinks::send(const Message& message, const std::vector<Value>& values) {
  Communicator& link = *links_.at(key_of(message));
  for (const at::Tensor& tensor : tensors_of(values)) link.send(tensor.contiguous(), /*peer=*/1);
}

std::vector<Work> StageLinks::receive(const Message& message, const std::vector<Value>& into) {
  Communicator& link = *links_.at(key_of(message));
  std::vector<Work> work;
  for (const at::Tensor& tensor : tensors_of(into)) work.push_back(link.recv(tensor, /*peer=*/0));
  return work;
}

void Inbox::begin(const Message& message) {
  std::vector<Value> values = make_(message);
  std::vector<Work> work = links_.receive(message, values);
  under_way_.push_back({message, std::move(values), std::move(work)});
}

std::vector<Value> Inbox::take(const Message& message) {
  const auto found =
      std::find_if(under_way_.begin(), under_way_.end(),
                   [&](const Receive& receive) { return receive.message == message; });
  MT_CHECK(found != under_way_.end(), "a message is asked for that nobody began to receive");
  for (Work& work : found->work) work.wait();
  std::vector<Value> taken = std::move(found->values);
  under_way_.erase(found);
  return taken;
}

}  // namespace moetron
