#include "moetron/comm/nccl_operations.h"

#include <ATen/ATen.h>

namespace moetron {
namespace {

c10d::ReduceOp reduction_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return c10d::ReduceOp::SUM;
    case ReduceOp::kMax:
      return c10d::ReduceOp::MAX;
    case ReduceOp::kMin:
      return c10d::ReduceOp::MIN;
  }
  MT_CHECK(false, "reduction ", static_cast<int>(op));
}

// What only moves is moved as bytes, for NCCL does not know every type.
at::Tensor view_bytes(const at::Tensor& tensor) {
  return tensor.view({-1}).view(at::kByte);  // [bytes]
}

std::vector<int64_t> bytes_of_rows(const std::vector<int64_t>& counts, const at::Tensor& tensor) {
  int64_t row = static_cast<int64_t>(tensor.element_size());
  for (int64_t extent : tensor.sizes().slice(1)) row *= extent;
  std::vector<int64_t> bytes;
  for (int64_t count : counts) bytes.push_back(count * row);
  return bytes;
}

c10::intrusive_ptr<c10d::Work> all_to_all_v(c10d::ProcessGroupNCCL& group,
                                            const Operation& operation) {
  at::Tensor output = view_bytes(operation.output);
  at::Tensor input = view_bytes(operation.input);
  std::vector<int64_t> received = bytes_of_rows(operation.output_counts, operation.output);
  std::vector<int64_t> sent = bytes_of_rows(operation.input_counts, operation.input);
  return group.alltoall_base(output, input, received, sent);
}

}  // namespace

c10::intrusive_ptr<c10d::Work> issue_on_nccl(c10d::ProcessGroupNCCL& group,
                                             const Operation& operation) {
  at::Tensor output = operation.output;
  at::Tensor input = operation.input;
  switch (operation.kind) {
    case OperationKind::kAllReduce:
    case OperationKind::kBarrier: {
      std::vector<at::Tensor> tensors = {output};
      c10d::AllreduceOptions options;
      options.reduceOp = reduction_of(operation.reduce_op);
      return group.allreduce(tensors, options);
    }
    case OperationKind::kAllGather: {
      at::Tensor gathered = view_bytes(output);  // [size * bytes]
      at::Tensor own = view_bytes(input);        // [bytes]
      return group._allgather_base(gathered, own);
    }
    case OperationKind::kReduceScatter: {
      c10d::ReduceScatterOptions options;
      options.reduceOp = reduction_of(operation.reduce_op);
      return group._reduce_scatter_base(output, input, options);
    }
    case OperationKind::kAllToAllV:
      return all_to_all_v(group, operation);
    case OperationKind::kBroadcast: {
      std::vector<at::Tensor> tensors = {view_bytes(output)};
      c10d::BroadcastOptions options;
      options.rootRank = operation.peer;
      return group.broadcast(tensors, options);
    }
    case OperationKind::kSend: {
      std::vector<at::Tensor> tensors = {view_bytes(input)};
      return group.send(tensors, operation.peer, operation.tag);
    }
    case OperationKind::kRecv: {
      std::vector<at::Tensor> tensors = {view_bytes(output)};
      return group.recv(tensors, operation.peer, operation.tag);
    }
  }
  MT_CHECK(false, "operation ", static_cast<int>(operation.kind));
}

}  // namespace moetron
