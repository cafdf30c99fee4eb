#include "moetron/comm/operation.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace moetron {

const char* operation_name(OperationKind kind) {
  switch (kind) {
    case OperationKind::kAllReduce:
      return "all_reduce";
    case OperationKind::kAllGather:
      return "all_gather";
    case OperationKind::kReduceScatter:
      return "reduce_scatter";
    case OperationKind::kAllToAllV:
      return "all_to_all_v";
    case OperationKind::kBroadcast:
      return "broadcast";
    case OperationKind::kSend:
      return "send";
    case OperationKind::kRecv:
      return "recv";
    case OperationKind::kBarrier:
      return "barrier";
  }
  return "?";
}

int64_t Operation::bytes() const {
  const int64_t out = output.defined() ? static_cast<int64_t>(output.nbytes()) : 0;
  const int64_t in = input.defined() ? static_cast<int64_t>(input.nbytes()) : 0;
  return std::max(out, in);
}

int64_t Operation::bytes_sent(int rank, int size) const {
  const int64_t out = output.defined() ? static_cast<int64_t>(output.nbytes()) : 0;
  const int64_t in = input.defined() ? static_cast<int64_t>(input.nbytes()) : 0;
  switch (kind) {
    case OperationKind::kAllReduce:
      return 2 * (size - 1) * out / size;
    case OperationKind::kAllGather:
      return (size - 1) * in;
    case OperationKind::kReduceScatter:
      return (size - 1) * out;
    case OperationKind::kAllToAllV: {
      const int64_t rows = input.size(0);
      return rows == 0 ? 0 : in / rows * (rows - input_counts[rank]);
    }
    case OperationKind::kBroadcast:
      return peer == rank ? (size - 1) * out : 0;
    case OperationKind::kSend:
      return in;
    case OperationKind::kRecv:
    case OperationKind::kBarrier:
      return 0;
  }
  return 0;
}

std::string describe_rank(int world_rank, const std::string& phase) {
  if (phase.empty()) return concat("rank ", world_rank);
  return concat("rank ", world_rank, " in phase \"", phase, "\"");
}

CommError make_comm_error(int world_rank, const std::string& group, const Operation& operation,
                          const Failure& failure, bool first_to_notice) {
  return CommError(
      concat(describe_rank(world_rank, *operation.phase), ": ", operation_name(operation.kind),
             " in group \"", group, "\" failed: ", failure.reason),
      failure.rank, first_to_notice);
}

}  // namespace moetron
