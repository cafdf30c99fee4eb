#include "moetron/comm/peer_copies.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using std::chrono::steady_clock;

constexpr int64_t kRoomsBytes = int64_t{64} << 20;  // of each rank of a group
constexpr int64_t kSignalBytes = 4096;
constexpr uint32_t kRooms = 2;
// Below it NCCL is done sooner.
constexpr int64_t kLeastBytes = int64_t{512} << 10;

const std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.const_data_ptr());
}

std::byte* mutable_bytes_of(const at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.mutable_data_ptr());
}

int64_t size_of(const at::Tensor& tensor) {
  return static_cast<int64_t>(tensor.nbytes());
}

void copy(std::byte* to, const std::byte* from, int64_t count,
          const c10::cuda::CUDAStream& stream) {
  if (count == 0 || to == from) return;
  C10_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(count), cudaMemcpyDeviceToDevice,
                                 stream.stream()));
}

int64_t row_bytes(const at::Tensor& tensor) {
  int64_t bytes = static_cast<int64_t>(tensor.element_size());
  for (const int64_t extent : tensor.sizes().slice(1)) bytes *= extent;
  return bytes;
}

// One of its own, since a stream of torch's pool may be shared; it stays until the process ends.
c10::cuda::CUDAStream make_stream(c10::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  cudaStream_t stream = nullptr;
  C10_CUDA_CHECK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, /*priority=*/-1));
  return c10::cuda::getStreamFromExternal(stream, device.index());
}

}  // namespace

struct PeerCopies::Held {
  std::vector<IssuedOperation> operations;
};

struct PeerCopies::Pending {
  std::shared_ptr<at::cuda::CUDAEvent> done;
  std::shared_ptr<Held> held;
  Outstanding what;
};

struct PeerCopies::Leg {
  int peer = 0;
  const std::byte* from = nullptr;  // `sent` bytes
  std::byte* to = nullptr;          // `received` bytes; null where they are added up
  int64_t sent = 0, received = 0;
};

namespace {

// The tensors are kept until someone has waited, whose stream then comes behind; else until all is
// done.
template <typename Held>
class PeerWork final : public c10d::Work {
 public:
  PeerWork(std::shared_ptr<at::cuda::CUDAEvent> done, std::shared_ptr<Held> held)
      : done_(std::move(done)), held_(std::move(held)) {}

  bool isCompleted() override { return done_->query(); }
  bool isSuccess() const override { return true; }
  void synchronize() override { wait(kNoTimeout); }
  bool wait(std::chrono::milliseconds) override {
    done_->block(c10::cuda::getCurrentCUDAStream(done_->device_index()));
    held_->operations.clear();
    return true;
  }

 private:
  std::shared_ptr<at::cuda::CUDAEvent> done_;
  std::shared_ptr<Held> held_;
};

}  // namespace

std::unique_ptr<PeerCopies> PeerCopies::connect(const ExchangeTexts& exchange, int rank, int size,
                                                c10::Device device) {
  const int64_t signals = int64_t{2} * size * static_cast<int64_t>(sizeof(uint32_t));
  if (size < 2 || signals > kSignalBytes) return nullptr;
  auto memory = PeerMemory::connect(exchange, rank, device, kSignalBytes + kRoomsBytes);
  if (!memory) return nullptr;
  return std::unique_ptr<PeerCopies>(new PeerCopies(std::move(memory), rank, size, device));
}

PeerCopies::PeerCopies(std::unique_ptr<PeerMemory> memory, int rank, int size, c10::Device device)
    : memory_(std::move(memory)),
      rank_(rank),
      size_(size),
      device_(device),
      room_bytes_(kRoomsBytes / size / kRooms / 512 * 512),
      channels_(static_cast<size_t>(size)),
      push_(make_stream(device)),
      drain_(make_stream(device)) {}

PeerCopies::~PeerCopies() = default;

bool PeerCopies::takes(const Operation& operation) {
  switch (operation.kind) {
    case OperationKind::kAllGather:
      return operation.bytes() >= kLeastBytes;
    case OperationKind::kReduceScatter:
      return operation.bytes() >= kLeastBytes && operation.reduce_op == ReduceOp::kSum &&
             operation.output.is_floating_point();
    case OperationKind::kAllToAllV:  // ranks send unlike many bytes
      return true;
    default:
      return false;
  }
}

std::byte* PeerCopies::arrived(int at, int from) const {
  return memory_->of(at) + sizeof(uint32_t) * static_cast<size_t>(from);
}

std::byte* PeerCopies::freed(int at, int by) const {
  return memory_->of(at) + sizeof(uint32_t) * static_cast<size_t>(size_ + by);
}

std::byte* PeerCopies::room(int at, int from, uint32_t message) const {
  return memory_->of(at) + kSignalBytes + (int64_t{from} * kRooms + message % kRooms) * room_bytes_;
}

std::vector<PeerCopies::Leg> PeerCopies::legs_of(const Operation& operation) const {
  const at::Tensor& input = operation.input;
  const at::Tensor& output = operation.output;
  std::vector<Leg> legs;
  // Each begins with another peer, so that no GPU receives from all at once.
  for (int step = 1; step < size_; ++step) {
    Leg leg{.peer = (rank_ + step) % size_};
    switch (operation.kind) {
      case OperationKind::kAllGather:
        leg.from = bytes_of(input);
        leg.sent = leg.received = size_of(input);
        leg.to = mutable_bytes_of(output) + leg.peer * leg.received;
        break;
      case OperationKind::kReduceScatter:
        leg.sent = leg.received = size_of(output);
        leg.from = bytes_of(input) + leg.peer * leg.sent;
        break;
      default: {
        const int64_t row = row_bytes(output);
        const auto rows_before = [&](const std::vector<int64_t>& counts) {
          return std::accumulate(counts.begin(), counts.begin() + leg.peer, int64_t{0});
        };
        const auto peer = static_cast<size_t>(leg.peer);
        leg.sent = operation.input_counts[peer] * row;
        leg.received = operation.output_counts[peer] * row;
        leg.from = bytes_of(input) + rows_before(operation.input_counts) * row;
        leg.to = mutable_bytes_of(output) + rows_before(operation.output_counts) * row;
      }
    }
    legs.push_back(leg);
  }
  return legs;
}

// This rank's own part of a gather or an exchange.
void PeerCopies::copy_own(const Operation& operation) {
  const std::byte* from = bytes_of(operation.input);
  std::byte* to = mutable_bytes_of(operation.output);
  int64_t count = size_of(operation.input);
  if (operation.kind == OperationKind::kReduceScatter) return;
  if (operation.kind == OperationKind::kAllGather) {
    to += rank_ * count;
  } else {
    const int64_t row = row_bytes(operation.output);
    const auto& in = operation.input_counts;
    const auto& out = operation.output_counts;
    from += std::accumulate(in.begin(), in.begin() + rank_, int64_t{0}) * row;
    to += std::accumulate(out.begin(), out.begin() + rank_, int64_t{0}) * row;
    count = in[static_cast<size_t>(rank_)] * row;
  }
  copy(to, from, count, drain_);
}

// The bytes from `begin` that a room takes.
void PeerCopies::push(const Leg& leg, int64_t begin) {
  const int64_t count = std::min(room_bytes_, leg.sent - begin);
  if (count <= 0) return;
  const uint32_t message = ++channels_[static_cast<size_t>(leg.peer)].sent;
  if (message > kRooms) await_signal(push_, freed(rank_, leg.peer), message - kRooms);
  copy(room(leg.peer, rank_, message), leg.from + begin, count, push_);
  write_signal(push_, arrived(leg.peer, rank_), message);
}

std::byte* PeerCopies::await_room(const Leg& leg) {
  const uint32_t message = ++channels_[static_cast<size_t>(leg.peer)].received;
  await_signal(drain_, arrived(rank_, leg.peer), message);
  return room(rank_, leg.peer, message);
}

void PeerCopies::free_room(const Leg& leg) {
  write_signal(drain_, freed(leg.peer, rank_), channels_[static_cast<size_t>(leg.peer)].received);
}

void PeerCopies::drain(const Leg& leg, int64_t begin) {
  const int64_t count = std::min(room_bytes_, leg.received - begin);
  if (count <= 0) return;
  copy(leg.to + begin, await_room(leg), count, drain_);
  free_room(leg);
}

// The elements of the output whose bytes begin at `begin`, as many as a room takes.
void PeerCopies::add_up(const Operation& operation, const std::vector<Leg>& legs, int64_t begin) {
  const at::Tensor output = operation.output.view({-1});
  const auto element = static_cast<int64_t>(output.element_size());
  const int64_t first = begin / element;
  const int64_t count = std::min(room_bytes_ / element, output.numel() - first);
  if (count <= 0) return;
  std::vector<at::Tensor> parts(static_cast<size_t>(size_));
  parts[static_cast<size_t>(rank_)] =
      operation.input.view({size_, -1}).select(0, rank_).narrow(0, first, count);
  for (const Leg& leg : legs) {
    parts[static_cast<size_t>(leg.peer)] =
        at::from_blob(await_room(leg), {count}, output.options());
  }
  at::Tensor sum = output.narrow(0, first, count);
  if (size_ == 2) {
    at::add_out(sum, parts[0], parts[1]);  // in fp32, too
  } else {
    const at::ScalarType type = output.scalar_type();
    at::Tensor exact = parts[0].to(type == at::kDouble ? at::kDouble : at::kFloat,
                                   /*non_blocking=*/true, /*copy=*/true);
    for (size_t r = 1; r < parts.size(); ++r) exact.add_(parts[r]);
    sum.copy_(exact);
  }
  for (const Leg& leg : legs) free_room(leg);
}

std::shared_ptr<at::cuda::CUDAEvent> PeerCopies::finish(OperationKind kind,
                                                        std::shared_ptr<const std::string> phase,
                                                        std::shared_ptr<Held> held) {
  at::cuda::CUDAEvent sent;
  sent.record(push_);
  sent.block(drain_);
  auto done = std::make_shared<at::cuda::CUDAEvent>();
  done->record(drain_);
  const std::lock_guard lock(mutex_);
  forget_done();
  pending_.push_back({done, std::move(held), {kind, std::move(phase), steady_clock::now()}});
  return done;
}

void PeerCopies::start(const Operation& operation) {
  const std::vector<Leg> legs = legs_of(operation);
  int64_t longest = 0;
  for (const Leg& leg : legs) longest = std::max({longest, leg.sent, leg.received});
  copy_own(operation);
  // In such an order that the two streams could be one, as they are where the GPU's queues are
  // fewer than its streams: a message is pushed before the one before it is drained, and waits only
  // for what peers drain before they push their own.
  for (int64_t begin = 0; begin < longest + room_bytes_; begin += room_bytes_) {
    for (const Leg& leg : legs) push(leg, begin);
    const int64_t previous = begin - room_bytes_;
    if (previous < 0) continue;
    if (operation.kind == OperationKind::kReduceScatter) {
      add_up(operation, legs, previous);
    } else {
      for (const Leg& leg : legs) drain(leg, previous);
    }
  }
}

c10::intrusive_ptr<c10d::Work> PeerCopies::issue(const std::vector<IssuedOperation>& operations) {
  const c10::cuda::CUDAStreamGuard guard(drain_);
  const at::NoGradGuard no_grad;
  for (const IssuedOperation& issued : operations) {
    at::cuda::CUDAEvent ready;
    ready.record(issued.stream);
    ready.block(push_);
    ready.block(drain_);
    start(*issued.operation);
  }
  auto held = std::make_shared<Held>(Held{operations});
  const Operation& first = *operations.front().operation;
  auto done = finish(first.kind, first.phase, held);
  return c10::make_intrusive<PeerWork<Held>>(std::move(done), std::move(held));
}

void PeerCopies::issue_farewell(std::shared_ptr<const std::string> phase) {
  const c10::cuda::CUDAGuard guard(device_);
  for (int peer = 0; peer < size_; ++peer) {
    const uint32_t sent = channels_[static_cast<size_t>(peer)].sent;
    if (sent > 0) await_signal(push_, freed(rank_, peer), sent);
  }
  finish(OperationKind::kBarrier, std::move(phase), nullptr);
}

void PeerCopies::forget_done() {
  while (!pending_.empty() && pending_.front().done->query()) {
    pending_.pop_front();
    last_progress_ = steady_clock::now();
  }
}

std::optional<PeerCopies::Outstanding> PeerCopies::oldest() {
  const std::lock_guard lock(mutex_);
  forget_done();
  if (pending_.empty()) return std::nullopt;
  Outstanding what = pending_.front().what;
  what.since = std::max(what.since, last_progress_);
  return what;
}

void PeerCopies::release() {
  const c10::cuda::CUDAGuard guard(device_);
  memory_->leave_open();
  // Far from any counter, and on a stream of its own: the others wait.
  constexpr int kFar = 0x3f;
  (void)cudaMemsetAsync(memory_->of(rank_), kFar, kSignalBytes, make_stream(device_).stream());
}

}  // namespace moetron
