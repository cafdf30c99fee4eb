// Gathers, sums and exchanges between the GPUs of one machine by their copy engines: no kernel
// takes multiprocessors from what computes, as those of NCCL do. Of builds with CUDA only.
//
// Each pair of ranks has a channel each way: two rooms in the receiver's memory, of which the
// sender fills one while the other is being emptied, and two counters, of messages that arrived and
// of rooms that are free again. Streams wait for counters (cuStreamWaitValue32): neither the host
// nor a kernel does. Sums are added in rank order in fp32 and rounded once, as gloo's are.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "moetron/comm/operation.h"
#include "moetron/comm/peer_memory.h"

namespace moetron {

// An operation with the stream that was current when it was issued.
struct IssuedOperation {
  std::shared_ptr<Operation> operation;
  c10::cuda::CUDAStream stream;
};

class PeerCopies {
 public:
  // Between the ranks of a group; null as PeerMemory::connect(). A collective.
  static std::unique_ptr<PeerCopies> connect(const ExchangeTexts& exchange, int rank, int size,
                                             c10::Device device);
  ~PeerCopies();
  PeerCopies(const PeerCopies&) = delete;
  PeerCopies& operator=(const PeerCopies&) = delete;

  // Whether it is for this: sums and gathers that are large, and exchanges. All ranks agree.
  static bool takes(const Operation& operation);

  // Starts them one behind the other, each behind what is queued on its stream. All ranks do so in
  // one order.
  c10::intrusive_ptr<c10d::Work> issue(const std::vector<IssuedOperation>& operations);
  // So that this rank may leave: what it sent has been read by all.
  void issue_farewell(std::shared_ptr<const std::string> phase);

  struct Outstanding {
    OperationKind kind;
    std::shared_ptr<const std::string> phase;
    std::chrono::steady_clock::time_point since;
  };
  // Forgets what is done. The oldest operation that is not, from when nothing has moved on.
  std::optional<Outstanding> oldest();

  // The world has failed: what waits on this GPU goes on, with values that nobody may use.
  void release();

 private:
  struct Held;     // operations until someone has waited for them
  struct Pending;  // what is under way
  struct Leg;      // what travels to and from one peer
  struct Channel {
    uint32_t sent = 0, received = 0;  // messages so far
  };

  PeerCopies(std::unique_ptr<PeerMemory> memory, int rank, int size, c10::Device device);
  void start(const Operation& operation);
  std::vector<Leg> legs_of(const Operation& operation) const;
  void copy_own(const Operation& operation);
  void push(const Leg& leg, int64_t begin);
  std::byte* await_room(const Leg& leg);
  void free_room(const Leg& leg);
  void drain(const Leg& leg, int64_t begin);
  void add_up(const Operation& operation, const std::vector<Leg>& legs, int64_t begin);
  std::shared_ptr<at::cuda::CUDAEvent> finish(OperationKind kind,
                                              std::shared_ptr<const std::string> phase,
                                              std::shared_ptr<Held> held);
  void forget_done();
  std::byte* arrived(int at, int from) const;
  std::byte* freed(int at, int by) const;
  std::byte* room(int at, int from, uint32_t message) const;

  std::unique_ptr<PeerMemory> memory_;
  int rank_, size_;
  c10::Device device_;
  int64_t room_bytes_;
  std::vector<Channel> channels_;       // by peer
  c10::cuda::CUDAStream push_, drain_;  // what is sent; what is received
  std::mutex mutex_;                    // guards what follows
  std::deque<Pending> pending_;
  std::chrono::steady_clock::time_point last_progress_ = std::chrono::steady_clock::now();
};

}  // namespace moetron
