// The connections between the stages of a pipeline (schedule/message.h says what travels).
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"
#include "moetron/pipeline/layer.h"
#include "moetron/schedule/message.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

// Sends something from rank `from` of a group of two to the other, and waits for it. The first
// message of NCCL connects the two, and blocks the host of either until the other is there; within
// a schedule they would wait for each other for good.
void connect(Communicator& pair, int from, c10::Device device);

// Outputs and gradients between two ranks, each way, have a communicator of their own: in a V all
// four travel at once, in an order that differs from rank to rank, and within a communicator
// messages need one order.
class StageLinks {
 public:
  // Collective over `pipeline`, the ranks of one pipeline in order, whose messages are on `device`.
  StageLinks(Communicator& pipeline, const Placement& placement, c10::Device device);

  const Placement& placement() const { return placement_; }
  int rank() const { return rank_; }
  c10::Device device() const { return device_; }  // of messages

  // A message is the list of its values' tensors, data and scales, whose shapes the receiver knows.
  // Does not wait; the message owns them until they have left.
  void send(const Message& message, const std::vector<Value>& values);
  std::vector<Work> receive(const Message& message, const std::vector<Value>& into);

 private:
  struct Key {
    int from;
    int to;
    bool is_forward;
    auto operator<=>(const Key&) const = default;
  };
  Key key_of(const Message& message) const;

  Placement placement_;
  int rank_;
  c10::Device device_;
  std::map<Key, std::unique_ptr<Communicator>> links_;  // of this rank
};

// Messages on their way to this rank.
class Inbox {
 public:
  // `make` gives values of the shapes that a message has, to receive it into. The links outlive the
  // inbox.
  using MakeValues = std::function<std::vector<Value>(const Message&)>;
  Inbox(StageLinks& links, MakeValues make) : links_(links), make_(std::move(make)) {}

  void begin(const Message& message);
  std::vector<Value> take(const Message& message);  // waits for it

 private:
  struct Receive {
    Message message;
    std::vector<Value> values;
    std::vector<Work> work;
  };

  StageLinks& links_;
  MakeValues make_;
  std::list<Receive> under_way_;
};

}  // namespace moetron
