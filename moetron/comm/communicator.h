// A group of ranks and the operations between them. A rank is a process in production (gloo; nccl
// on GPUs) and a thread in a test (thread_ranks.h); the fake backend only records.
//
// Rules that hold for every backend:
// - Every member issues the operations of one communicator in the same order. Different
//   communicators are independent of each other.
// - Each operation returns a Work at once; its outputs may be read, and its inputs and outputs
//   written, only after Work::wait(). The operation owns its tensors until it is done, so a caller
//   may drop its own handles, and may wait in any order.
// - On a device, an operation starts after what is queued on the current stream, and wait() makes
//   the current stream wait for it without blocking the host. On a CPU, wait() sleeps.
// - Tensors are contiguous and carry no gradient history: operations move bytes, below autograd.
// - thread and gloo reduce in rank order, floating types narrower than 32 bits summed in fp32 and
//   rounded once, fp64 in fp64, integers exactly (modulo their width): the same bits on every rank,
//   on both backends, however a message is cut. A maximum or minimum over a NaN is NaN.
// - A rank that fails, times out or calls abort() poisons all groups of its world: every waiter and
//   every later call throws CommError.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/base/error.h"

namespace moetron {

enum class ReduceOp { kSum, kMax, kMin };

// A collective that could not be finished. The message names this rank, the phase, the operation,
// the group, and the first failure known. A restart may help, so the exit code is 1.
class CommError : public Error {
 public:
  CommError(const std::string& message, int failed_rank, bool first_to_notice);

  // World rank whose failure came first; -1 where nobody knows.
  int failed_rank() const { return failed_rank_; }
  // True on the one rank that noticed the failure before all others: it prints, the others may be
  // silent.
  bool first_to_notice() const { return first_to_notice_; }

 private:
  int failed_rank_;
  bool first_to_notice_;
};

// An operation under way, as a backend sees it.
class PendingWork {
 public:
  virtual ~PendingWork() = default;
  virtual void wait() = 0;
};

// The handle of an issued operation. Dropping it unwaited is allowed: the operation goes on.
class Work {
 public:
  Work() = default;  // of an operation that had nothing to do
  Work(std::shared_ptr<PendingWork> pending, std::shared_ptr<const int> open_groups)
      : pending_(std::move(pending)), open_groups_(std::move(open_groups)) {}

  // Returns when the operation is done; a second call returns at once. Throws CommError when it
  // failed. Not between group_begin() and group_end().
  void wait();

 private:
  std::shared_ptr<PendingWork> pending_;
  std::shared_ptr<const int> open_groups_;
};

struct RankContext;  // what all communicators of one rank share (operation.h)
struct Operation;    // one operation as a backend sees it (operation.h)

class Communicator {
 public:
  virtual ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }  // within this group
  int size() const { return static_cast<int>(members_.size()); }
  const std::string& name() const { return name_; }             // "world", or as given at split
  const std::vector<int>& members() const { return members_; }  // world rank of each rank here
  int world_rank() const { return members_[rank_]; }

  // In place; every rank passes the same shape and type.
  Work all_reduce(const at::Tensor& tensor, ReduceOp op = ReduceOp::kSum);
  // output: [size * n, ...] = the inputs [n, ...] of ranks 0, 1, ... one after the other.
  Work all_gather(const at::Tensor& output, const at::Tensor& input);
  // input: [size * n, ...]; output: [n, ...] = piece `rank` of the reduced input.
  Work reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                      ReduceOp op = ReduceOp::kSum);
  // Rows along dimension 0. input holds input_counts[0] rows for rank 0, then input_counts[1] for
  // rank 1, ...; output receives output_counts[r] rows from rank r, in rank order. Counts are of
  // `size` elements and may be zero; what rank a sends to b, b must expect from a. All dimensions
  // but the first agree.
  Work all_to_all_v(const at::Tensor& output, const at::Tensor& input,
                    std::span<const int64_t> output_counts, std::span<const int64_t> input_counts);
  Work broadcast(const at::Tensor& tensor, int root);

  // Point to point. A send meets the recv of the same pair and tag (>= 0); messages of one pair and
  // tag arrive in the order sent. A send may not be done before its recv is issued: issue both
  // directions before waiting for either. Bytes must agree.
  Work send(const at::Tensor& tensor, int peer, int tag = 0);
  Work recv(const at::Tensor& tensor, int peer, int tag = 0);

  // Operations issued in between start together (NCCL needs this to send and receive at once);
  // their Works may be waited for only after group_end(). Groups nest.
  void group_begin();
  void group_end();

  // Returns when every rank has entered; blocks the host.
  void barrier();

  // Ranks that give the same color form a group, ordered by key, then by rank here; a collective of
  // this communicator. A negative color joins none and gets nullptr.
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name);
  // The same where the members are known: ranks of this communicator, in the order they get in the
  // new one. Called by the members alone, by all of them with the same arguments in the same order.
  std::unique_ptr<Communicator> subgroup(const std::vector<int>& ranks, const std::string& name);

  // A second world of the same ranks, for tensors of the host: over gloo where they are processes,
  // between their threads where they are threads. What fails in it, a time-out or abort(), ends it
  // alone, and this world's failure does not end it. It has a phase of its own, and may be used and
  // aborted by other threads than this one. A collective of the world.
  std::unique_ptr<Communicator> separate_world(const std::string& name);

  // Poisons all groups of this rank's world. Does not throw; the first reason wins.
  void abort(const std::string& reason);

  // What this rank is doing, for messages: shared by all communicators split from one world.
  void set_phase(const std::string& phase);
  std::string phase() const;

 protected:
  Communicator(std::shared_ptr<RankContext> context, std::string name, int rank,
               std::vector<int> members);

  const std::shared_ptr<RankContext>& context() const { return context_; }

  // For a communicator that stands before another.
  static const std::shared_ptr<RankContext>& context_of(const Communicator& behind) {
    return behind.context_;
  }
  static std::shared_ptr<PendingWork> start_on(Communicator& behind,
                                               std::shared_ptr<Operation> operation) {
    return behind.start(std::move(operation));
  }

 private:
  // Starts an operation whose arguments have been checked, without waiting for any peer.
  virtual std::shared_ptr<PendingWork> start(std::shared_ptr<Operation> operation) = 0;
  virtual void start_group() {}
  virtual void finish_group() {}
  // `key` is the same on all members and new in this world; `members` are world ranks.
  virtual std::unique_ptr<Communicator> make_subgroup(const std::string& key,
                                                      const std::string& name, int rank,
                                                      std::vector<int> members) = 0;
  // `key` is the same on all ranks and new in this world.
  virtual std::unique_ptr<Communicator> make_separate_world(const std::string& key) = 0;
  virtual void poison(const std::string& reason) = 0;

  Work issue(std::shared_ptr<Operation> operation);

  std::shared_ptr<RankContext> context_;
  std::string name_;
  std::string key_;  // names the group within its world; the world's own is empty
  int rank_;
  std::vector<int> members_;
  std::shared_ptr<int> open_groups_;
  std::map<std::string, int> num_subgroups_;  // by name and members, to tell repeats apart
  int num_separate_worlds_ = 0;
};

// Names what this rank does while the scope lives: PhaseScope phase(world, "step 7, optimizer").
// An exception that ends the scope leaves the phase as it is, so that its report names where it
// happened.
class PhaseScope {
 public:
  PhaseScope(Communicator& communicator, const std::string& phase);
  ~PhaseScope();
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  Communicator& communicator_;
  std::string previous_;
  int num_exceptions_;
};

}  // namespace moetron
