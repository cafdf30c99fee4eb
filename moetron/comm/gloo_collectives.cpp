#include "moetron/comm/gloo_collectives.h"

#include <cstring>
#include <memory>
#include <numeric>

#include <ATen/ATen.h>

#include "moetron/comm/reduce.h"

namespace moetron {
namespace {

// Below this, one round in which everybody sends everything costs less than two of pieces.
constexpr int64_t kOneRoundBytes = 32 << 10;

char* bytes_of(const at::Tensor& tensor) {
  return static_cast<char*>(tensor.data_ptr());
}

int64_t num_bytes(const at::Tensor& tensor) {
  return static_cast<int64_t>(tensor.nbytes());
}

// The same message to or from every rank.
std::vector<Message> to_all(const GlooLink& link, void* data, int64_t bytes) {
  return std::vector<Message>(link.size(), Message{data, bytes});
}

// Receives one piece of `bytes` from each other rank, while outgoing[r] goes to rank r, and reduces
// them with this rank's own piece into `output`, which may lie within what was sent.
void exchange_and_reduce(GlooLink& link, const Operation& operation, char* own_piece, char* output,
                         int64_t num_elements, const std::vector<Message>& outgoing) {
  const c10::ScalarType type = operation.output.scalar_type();
  const int64_t bytes = num_elements * static_cast<int64_t>(operation.output.element_size());
  const auto received = std::make_unique_for_overwrite<char[]>(bytes * link.size());
  std::vector<Message> incoming;
  std::vector<const void*> pieces;
  for (int r = 0; r < link.size(); ++r) {
    incoming.push_back({received.get() + r * bytes, bytes});
    pieces.push_back(r == link.rank() ? own_piece : incoming[r].data);
  }
  link.exchange(outgoing, incoming);
  reduce_in_order(type, operation.reduce_op, output, pieces, num_elements);
}

void all_reduce(GlooLink& link, const Operation& operation) {
  const at::Tensor& tensor = operation.output;
  char* data = bytes_of(tensor);
  if (num_bytes(tensor) <= kOneRoundBytes) {
    return exchange_and_reduce(link, operation, data, data, tensor.numel(),
                               to_all(link, data, num_bytes(tensor)));
  }
  const int64_t element = static_cast<int64_t>(tensor.element_size());
  std::vector<Message> pieces;  // rank r reduces piece r
  for (int r = 0; r < link.size(); ++r) {
    const int64_t begin = tensor.numel() * r / link.size();
    const int64_t end = tensor.numel() * (r + 1) / link.size();
    pieces.push_back({data + begin * element, (end - begin) * element});
  }
  const Message own = pieces[link.rank()];
  char* own_data = static_cast<char*>(own.data);
  exchange_and_reduce(link, operation, own_data, own_data, own.bytes / element, pieces);
  link.exchange(to_all(link, own.data, own.bytes), pieces);
}

void all_gather(GlooLink& link, const Operation& operation) {
  const int64_t bytes = num_bytes(operation.input);
  std::vector<Message> incoming;
  for (int r = 0; r < link.size(); ++r) {
    incoming.push_back({bytes_of(operation.output) + r * bytes, bytes});
  }
  void* own = incoming[link.rank()].data;
  if (own != operation.input.data_ptr() && bytes > 0) {
    std::memcpy(own, operation.input.data_ptr(), bytes);
  }
  link.exchange(to_all(link, bytes_of(operation.input), bytes), incoming);
}

void reduce_scatter(GlooLink& link, const Operation& operation) {
  const int64_t bytes = num_bytes(operation.output);
  std::vector<Message> outgoing;
  for (int r = 0; r < link.size(); ++r) {
    outgoing.push_back({bytes_of(operation.input) + r * bytes, bytes});
  }
  exchange_and_reduce(link, operation, static_cast<char*>(outgoing[link.rank()].data),
                      bytes_of(operation.output), operation.output.numel(), outgoing);
}

std::vector<Message> cut_rows(const at::Tensor& tensor, const std::vector<int64_t>& counts) {
  int64_t row = static_cast<int64_t>(tensor.element_size());
  for (int64_t extent : tensor.sizes().slice(1)) row *= extent;
  std::vector<Message> messages;
  char* data = bytes_of(tensor);
  for (int64_t count : counts) {
    messages.push_back({data, count * row});
    data += count * row;
  }
  return messages;
}

void all_to_all_v(GlooLink& link, const Operation& operation) {
  const std::vector<Message> outgoing = cut_rows(operation.input, operation.input_counts);
  const std::vector<Message> incoming = cut_rows(operation.output, operation.output_counts);
  const Message& from = outgoing[link.rank()];
  const Message& to = incoming[link.rank()];
  MT_CHECK(from.bytes == to.bytes, "all_to_all_v: rank ", link.rank(), " of the group sends ",
           from.bytes, " bytes to itself, and expects ", to.bytes);
  if (to.bytes > 0) std::memcpy(to.data, from.data, to.bytes);
  link.exchange(outgoing, incoming);
}

void broadcast(GlooLink& link, const Operation& operation) {
  const Message whole = {bytes_of(operation.output), num_bytes(operation.output)};
  std::vector<Message> outgoing(link.size());
  std::vector<Message> incoming(link.size());
  if (operation.peer == link.rank()) outgoing.assign(link.size(), whole);
  if (operation.peer != link.rank()) incoming[operation.peer] = whole;
  link.exchange(outgoing, incoming);
}

void barrier(GlooLink& link) {
  std::vector<char> bytes(link.size());
  std::vector<Message> incoming;
  char mine = 0;
  for (char& byte : bytes) incoming.push_back({&byte, 1});
  link.exchange(to_all(link, &mine, 1), incoming);
}

}  // namespace

void run_collective(GlooLink& link, const Operation& operation) {
  switch (operation.kind) {
    case OperationKind::kAllReduce:
      return all_reduce(link, operation);
    case OperationKind::kAllGather:
      return all_gather(link, operation);
    case OperationKind::kReduceScatter:
      return reduce_scatter(link, operation);
    case OperationKind::kAllToAllV:
      return all_to_all_v(link, operation);
    case OperationKind::kBroadcast:
      return broadcast(link, operation);
    case OperationKind::kBarrier:
      return barrier(link);
    case OperationKind::kSend:
    case OperationKind::kRecv:
      MT_CHECK(false, "messages are no collectives");
  }
}

}  // namespace moetron
