// The connections between the stages of a pipeline (schedule/message.h says what travels).
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"
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

  // Does not wait; the message owns the tensor until it has left.
  void send(const Message& message, const at::Tensor& tensor);
  Work receive(const Message& message, const at::Tensor& into);

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
  std::map<Key, std::unique_ptr<Communicator>> links_;  // of this rank
};

// Messages on their way to this rank.
class Inbox {
 public:
  // `make_buffer` gives the tensor that a micro-batch's message is received into. The links outlive
  // the inbox.
  Inbox(StageLinks& links, std::function<at::Tensor(int micro_batch)> make_buffer)
      : links_(links), make_buffer_(std::move(make_buffer)) {}

  void begin(const Message& message);
  at::Tensor take(const Message& message);  // waits for it

 private:
  struct Receive {
    Message message;
    at::Tensor buffer;
    Work work;
  };

  StageLinks& links_;
  std::function<at::Tensor(int)> make_buffer_;
  std::list<Receive> under_way_;
};

}  // namespace moetron
