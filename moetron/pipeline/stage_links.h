// The connections between the stages of a pipeline (schedule/message.h says what travels).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"
#include "moetron/schedule/message.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

// Outputs and gradients between two ranks, each way, have a communicator of their own: in a V all
// four travel at once, in an order that differs from rank to rank, and within a communicator
// messages need one order.
class StageLinks {
 public:
  // Collective over `pipeline`, the ranks of one pipeline in order.
  StageLinks(Communicator& pipeline, const Placement& placement);

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

// What a rank is to receive, each kind from each peer in the schedule's order: the next of each is
// always under way before it is asked for.
class Inbox {
 public:
  // `make_buffer` gives the tensor that a micro-batch's message is received into. The links outlive
  // the inbox.
  Inbox(const StepList& steps, StageLinks& links,
        std::function<at::Tensor(int micro_batch)> make_buffer);

  at::Tensor take(const Message& message);  // waits for it

 private:
  struct Line {
    std::vector<Message> messages;
    size_t num_posted = 0;
    at::Tensor buffer;
    Work work;
  };
  Line& line_of(const Message& message);
  void post(Line& line);

  StageLinks& links_;
  std::function<at::Tensor(int)> make_buffer_;
  std::map<std::pair<int, bool>, Line> lines_;  // by sender and is_forward
};

}  // namespace moetron
