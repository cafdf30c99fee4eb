// What the backends of a Communicator share: an operation with its checked arguments, and the
// failure that ends a world.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"

namespace moetron {

enum class OperationKind {
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kAllToAllV,
  kBroadcast,
  kSend,
  kRecv,
  kBarrier,
};

const char* operation_name(OperationKind kind);

// Owns its tensors. all_reduce and broadcast work in place on `output`; send reads `input`; recv
// writes `output`; a barrier has neither.
struct Operation {
  OperationKind kind;
  at::Tensor output;
  at::Tensor input;
  ReduceOp reduce_op = ReduceOp::kSum;
  std::vector<int64_t> output_counts;  // all_to_all_v: rows by rank
  std::vector<int64_t> input_counts;
  int peer = -1;  // root of a broadcast, other end of a send or recv: a rank of the group
  int tag = 0;
  std::shared_ptr<const std::string> phase;  // at issue

  // The larger of what goes in and what comes out.
  int64_t bytes() const;
  // What rank `rank` of a group of `size` sends to other ranks when every byte moves once:
  // all_gather (size - 1) * input, reduce_scatter (size - 1) * output, all_reduce 2 (size - 1) /
  // size of the tensor (rounded down), all_to_all_v the rows for others, a broadcast's root (size -
  // 1) * tensor, send the message; else 0.
  int64_t bytes_sent(int rank, int size) const;
};

// The first failure of a world.
struct Failure {
  int rank = -1;       // world rank at fault, -1 unknown
  std::string reason;  // names rank and phase: what every rank's message ends with
};

// What all communicators of one rank share.
struct RankContext {
  explicit RankContext(int rank_in_world) : world_rank(rank_in_world) {}

  const int world_rank;
  std::mutex mutex;
  std::shared_ptr<const std::string> phase = std::make_shared<const std::string>();
};

// "rank 3 in phase "step 7"", without the phase where none is set.
std::string describe_rank(int world_rank, const std::string& phase);

// The error of an operation that `failure` ended.
CommError make_comm_error(int world_rank, const std::string& group, const Operation& operation,
                          const Failure& failure, bool first_to_notice);

}  // namespace moetron
