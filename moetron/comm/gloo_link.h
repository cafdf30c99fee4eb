// The connections of one group of processes: messages of bytes over c10d's Gloo process group.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/csrc/distributed/c10d/Work.hpp>

#include "moetron/comm/world_options.h"

namespace c10d {
class ProcessGroupGloo;
}

namespace gloo::transport {
class Device;
}

namespace moetron {

// A message that did not pass. `peer` is the rank of the group at its other end.
class TransferError : public std::runtime_error {
 public:
  TransferError(int peer_rank, const std::string& symptom)
      : std::runtime_error(symptom), peer(peer_rank) {}
  const int peer;
};

struct Message {
  void* data = nullptr;  // not owned
  int64_t bytes = 0;
};

// A message under way; of nothing, where it had no bytes.
struct Transfer {
  c10::intrusive_ptr<c10d::Work> work;
  int peer = -1;
};

using GlooDevice = std::shared_ptr<::gloo::transport::Device>;

// The network interface that all links of a process use: GLOO_SOCKET_IFNAME, whose first name must
// be one (ConfigError), else that of the host's name.
GlooDevice open_gloo_device();

class GlooLink {
 public:
  // Connects the `size` ranks that use the same key, each to each.
  GlooLink(const WorldOptions& world, const GlooDevice& device, const std::string& key, int rank,
           int size);
  ~GlooLink();

  int rank() const { return rank_; }
  int size() const { return size_; }

  // Empty messages are not sent: both ends know the size. Tags below kFirstCollectiveTag are free.
  Transfer send(const Message& message, int peer, int tag);
  Transfer recv(const Message& message, int peer, int tag);
  // Throws TransferError, also when abort() was called.
  void wait(const Transfer& transfer);

  // Sends outgoing[r] to and receives incoming[r] from each rank r but this one, all at once, and
  // waits for all. Rounds of a link meet in their order.
  void exchange(const std::vector<Message>& outgoing, const std::vector<Message>& incoming);

  // Ends all waits, now and later. From any thread.
  void abort();

  static constexpr int kFirstCollectiveTag = 1 << 30;

 private:
  const int rank_;
  const int size_;
  const std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
  int num_rounds_ = 0;
  std::mutex issue_mutex_;  // the process group is not made for two threads at once

  std::mutex waiting_mutex_;
  bool aborted_ = false;
  std::list<c10::intrusive_ptr<c10d::Work>> waiting_;
};

}  // namespace moetron
