#include "moetron/comm/local_execution.h"

#include <cstring>

#include <ATen/ATen.h>

#include "moetron/comm/reduce.h"

namespace moetron {
namespace {

using Parts = std::vector<std::shared_ptr<Operation>>;

char* bytes_of(const at::Tensor& tensor) {
  return static_cast<char*>(tensor.data_ptr());
}

// In-place forms make source and destination the same place.
void copy_bytes(char* to, const char* from, int64_t count) {
  if (to != from && count > 0) std::memcpy(to, from, count);
}

void check_same(const Parts& parts) {
  const Operation& first = *parts[0];
  for (size_t r = 1; r < parts.size(); ++r) {
    const Operation& other = *parts[r];
    MT_CHECK(first.kind == other.kind, "rank 0 of the group issued ", operation_name(first.kind),
             " where rank ", r, " issued ", operation_name(other.kind));
    if (!first.output.defined()) continue;
    MT_CHECK(first.output.scalar_type() == other.output.scalar_type(), operation_name(first.kind),
             " of ", first.output.scalar_type(), " on rank 0 of the group, of ",
             other.output.scalar_type(), " on rank ", r);
    MT_CHECK(first.kind == OperationKind::kAllToAllV || first.bytes() == other.bytes(),
             operation_name(first.kind), " of ", first.bytes(),
             " bytes on rank 0 of the group, of ", other.bytes(), " on rank ", r);
    MT_CHECK(first.reduce_op == other.reduce_op, "reductions differ on rank 0 and ", r);
    MT_CHECK(first.kind != OperationKind::kBroadcast || first.peer == other.peer, "broadcast from ",
             first.peer, " on rank 0 of the group, from ", other.peer, " on rank ", r);
  }
}

void all_reduce(const Parts& parts) {
  std::vector<const void*> inputs;
  for (const auto& part : parts) inputs.push_back(part->output.data_ptr());
  const at::Tensor& result = parts[0]->output;
  reduce_in_order(result.scalar_type(), parts[0]->reduce_op, result.data_ptr(), inputs,
                  result.numel());
  for (const auto& part : parts) {
    copy_bytes(bytes_of(part->output), bytes_of(result), static_cast<int64_t>(result.nbytes()));
  }
}

void all_gather(const Parts& parts) {
  const int64_t bytes = static_cast<int64_t>(parts[0]->input.nbytes());
  for (const auto& to : parts) {
    char* place = bytes_of(to->output);
    for (const auto& from : parts) {
      copy_bytes(place, bytes_of(from->input), bytes);
      place += bytes;
    }
  }
}

void reduce_scatter(const Parts& parts) {
  const int64_t bytes = static_cast<int64_t>(parts[0]->output.nbytes());
  for (size_t r = 0; r < parts.size(); ++r) {
    std::vector<const void*> pieces;
    for (const auto& from : parts) {
      pieces.push_back(bytes_of(from->input) + static_cast<int64_t>(r) * bytes);
    }
    const at::Tensor& output = parts[r]->output;
    reduce_in_order(output.scalar_type(), parts[r]->reduce_op, output.data_ptr(), pieces,
                    output.numel());
  }
}

int64_t row_bytes(const at::Tensor& tensor) {
  int64_t elements = 1;
  for (int64_t extent : tensor.sizes().slice(1)) elements *= extent;
  return elements * static_cast<int64_t>(tensor.element_size());
}

void all_to_all_v(const Parts& parts) {
  const int64_t row = row_bytes(parts[0]->input);
  for (const auto& part : parts) {
    MT_CHECK(row_bytes(part->input) == row, "all_to_all_v of rows of ", row, " and ",
             row_bytes(part->input), " bytes");
  }
  std::vector<char*> ends;  // where the next rows of each rank go
  for (const auto& part : parts) ends.push_back(bytes_of(part->output));
  for (size_t from = 0; from < parts.size(); ++from) {
    const char* rows = bytes_of(parts[from]->input);
    for (size_t to = 0; to < parts.size(); ++to) {
      const int64_t sent = parts[from]->input_counts[to];
      const int64_t expected = parts[to]->output_counts[from];
      MT_CHECK(sent == expected, "all_to_all_v: rank ", from, " of the group sends ", sent,
               " rows to rank ", to, ", which expects ", expected);
      copy_bytes(ends[to], rows, sent * row);
      ends[to] += sent * row;
      rows += sent * row;
    }
  }
}

void broadcast(const Parts& parts) {
  const at::Tensor& source = parts[parts[0]->peer]->output;
  for (const auto& part : parts) {
    copy_bytes(bytes_of(part->output), bytes_of(source), static_cast<int64_t>(source.nbytes()));
  }
}

void deliver(const Operation& send, const Operation& recv) {
  MT_CHECK(send.input.nbytes() == recv.output.nbytes(), "a message of ", send.input.nbytes(),
           " bytes met a recv of ", recv.output.nbytes(), " (tag ", send.tag, ")");
  copy_bytes(bytes_of(recv.output), bytes_of(send.input),
             static_cast<int64_t>(send.input.nbytes()));
}

// A group of one rank on any device: what it holds is the result, or a copy of it.
void execute_alone(const Operation& operation) {
  MT_CHECK(operation.input_counts == operation.output_counts,
           "all_to_all_v: a lone rank sends other rows to itself than it expects");
  const at::Tensor& output = operation.output;
  const at::Tensor& input = operation.input;
  if (input.defined() && output.data_ptr() != input.data_ptr()) {
    output.view({-1}).copy_(input.view({-1}), /*non_blocking=*/true);
  }
}

}  // namespace

void execute_together(const Parts& parts) {
  const at::Tensor& some = parts[0]->output.defined() ? parts[0]->output : parts[0]->input;
  if (parts.size() == 1 && some.defined() && !some.is_cpu()) return execute_alone(*parts[0]);
  if (parts[0]->kind == OperationKind::kSend) return deliver(*parts[0], *parts[1]);
  check_same(parts);
  switch (parts[0]->kind) {
    case OperationKind::kAllReduce:
      return all_reduce(parts);
    case OperationKind::kAllGather:
      return all_gather(parts);
    case OperationKind::kReduceScatter:
      return reduce_scatter(parts);
    case OperationKind::kAllToAllV:
      return all_to_all_v(parts);
    case OperationKind::kBroadcast:
      return broadcast(parts);
    case OperationKind::kBarrier:
    case OperationKind::kSend:
    case OperationKind::kRecv:
      return;
  }
}

}  // namespace moetron
