// One group of ranks over c10d's NCCL process group: connects it, issues operations, and knows
// which of them are not done.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "moetron/comm/nccl_communicator.h"
#include "moetron/comm/operation.h"
#include "moetron/comm/peer_copies.h"
#include "moetron/comm/process_world.h"

namespace moetron {

class NcclGroup {
 public:
  // Connects the ranks `members` of the world, which all use the same `key`; throws CommError.
  NcclGroup(std::shared_ptr<ProcessWorld> world, const NcclOptions& options, const std::string& key,
            const std::string& name, int rank, const std::vector<int>& members,
            const std::string& phase);
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  // Starts the operations together; null where they move nothing. Throws CommError.
  c10::intrusive_ptr<c10d::Work> issue(const std::vector<IssuedOperation>& operations);

  // Makes the current stream wait for `work`, and with `blocks_host` the host too. Throws
  // CommError.
  void wait(c10d::Work& work, const Operation& operation, bool blocks_host) const;

  // For the watching thread: forgets operations that are done. What is wrong with the oldest that
  // is not, if anything.
  std::optional<std::string> find_fault(std::chrono::milliseconds timeout);
  // Ends all operations under way; does not throw. May take long.
  void abort();

  // Leaves the group: once its operations are done, or at once where not `orderly` or the world has
  // failed. Does not throw.
  void close(bool orderly);

 private:
  // Of one issue. c10d's work would keep the output alive until it is done; the copy does not. A
  // message is kept, for nobody may be waiting for it.
  struct Outstanding {
    c10d::ProcessGroupNCCL::WorkNCCL work;
    std::vector<std::shared_ptr<Operation>> sends;
    OperationKind kind;
    std::shared_ptr<const std::string> phase;
    std::chrono::steady_clock::time_point since;
  };

  void connect(const NcclOptions& options, const std::string& key, int rank);
  // What each rank said under `name`, in rank order.
  std::vector<std::string> exchange(c10d::Store& store, int rank, const std::string& name,
                                    const std::string& mine) const;
  c10::intrusive_ptr<c10d::Work> issue_together(const std::vector<IssuedOperation>& operations);
  bool goes_by_peer_copies(const std::vector<IssuedOperation>& operations) const;
  CommError explain(const Operation& operation, const std::exception& error) const;
  std::string describe_trouble(const std::string& phase, OperationKind kind,
                               const std::string& trouble) const;
  bool has_outstanding();

  std::shared_ptr<ProcessWorld> world_;
  std::string name_;
  std::vector<int> members_;
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> group_;
  std::unique_ptr<PeerCopies> peers_;  // null: all by NCCL
  std::atomic<bool> closed_ = false;
  std::mutex mutex_;  // guards what follows
  std::deque<Outstanding> outstanding_;
  std::chrono::steady_clock::time_point last_progress_ = std::chrono::steady_clock::now();
};

}  // namespace moetron
