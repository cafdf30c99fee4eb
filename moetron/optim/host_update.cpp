#include "moetron/optim/host_update.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr int64_t kGrain = int64_t{1} << 15;  // elements below which a thread is not worth waking
constexpr int64_t kPage = 4096;               // bytes after which addresses look alike to a cache

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

int64_t page_offset(const void* address) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(address) % kPage);
}

// Bytes between the addresses within their pages, round the page's end if that is nearer.
int64_t distance(int64_t a, int64_t b) {
  const int64_t apart = std::abs(a - b);
  return std::min(apart, kPage - apart);
}

}  // namespace

void update_on_host(const AdamWPointers& all, int64_t count, const AdamWCoefficients& c) {
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    uint16_t* rounded = all.rounded == nullptr ? nullptr : all.rounded + begin;
    adamw_update({all.value + begin, all.exp_avg + begin, all.exp_avg_sq + begin, all.grad + begin,
                  rounded},
                 end - begin, c);
  });
}

at::Tensor zeros_apart_from(const std::vector<const void*>& others, int64_t count) {
  constexpr int64_t kStep = 256;  // bytes; from 128 on no loss was measured
  const at::Tensor storage = at::zeros({count + kPage / 4}, at::kFloat);
  int64_t best = 0, best_distance = -1;
  for (int64_t shift = 0; shift < kPage; shift += kStep) {
    int64_t nearest = kPage;
    for (const void* other : others) {
      const int64_t place = (page_offset(storage.const_data_ptr()) + shift) % kPage;
      nearest = std::min(nearest, distance(place, page_offset(other)));
    }
    if (nearest > best_distance) {
      best = shift;
      best_distance = nearest;
    }
  }
  return storage.narrow(0, best / 4, count);
}

StagedUpdate::StagedUpdate(c10::Device device, bool pinned, int64_t chunk_elements)
    : device_(device), chunk_elements_(chunk_elements) {
  constexpr int64_t kPageElements = kPage / 4;
  MT_CHECK(chunk_elements % kPageElements == 0, "a chunk of ", chunk_elements, " elements");
  // Half a page lies between a chunk's gradients and its values, see zeros_apart_from().
  const int64_t slot_elements = 2 * chunk_elements + kPageElements;
  const at::Tensor storage =
      at::empty({2 * slot_elements}, at::TensorOptions(at::kFloat).pinned_memory(pinned));
  for (int64_t i = 0; i < 2; ++i) {
    const at::Tensor slot = storage.narrow(0, i * slot_elements, slot_elements);
    slots_[i] = {slot.narrow(0, 0, chunk_elements),
                 slot.narrow(0, chunk_elements + kPageElements / 2, chunk_elements)};
  }
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  const auto event = [&] { return c10::Event(device.type()); };
  streams_ = Streams{guard.getStreamFromGlobalPool(device), guard.getStreamFromGlobalPool(device),
                     event(), {event(), event()}, {event(), event()}};
}

std::vector<const void*> StagedUpdate::staging() const {
  return {slots_[0].grad.const_data_ptr(), slots_[0].value.const_data_ptr()};
}

void StagedUpdate::begin() {
  if (!streams_) return;
  streams_->ready.record(current_stream(device_));
  streams_->ready.block(streams_->down);
  streams_->ready.block(streams_->up);
}

at::Tensor StagedUpdate::staged_value(const Piece& piece, size_t slot) const {
  return slots_[slot].value.view(piece.part->value.scalar_type()).narrow(0, 0, piece.count);
}

// A value without master is itself what the host updates.
void StagedUpdate::copy_down(const Piece& piece, size_t slot) {
  const c10::OptionalStreamGuard guard(streams_ ? std::optional(streams_->down) : std::nullopt);
  const bool non_blocking = streams_.has_value();
  const HostPart& part = *piece.part;
  slots_[slot]
      .grad.narrow(0, 0, piece.count)
      .copy_(part.grad.narrow(0, piece.begin, piece.count), non_blocking);
  if (!part.master.defined()) {
    if (streams_) streams_->up_done[slot].block(streams_->down);
    staged_value(piece, slot)
        .copy_(part.value.narrow(0, piece.begin, piece.count), non_blocking);
  }
  if (streams_) streams_->down_done[slot].record(streams_->down);
}

void StagedUpdate::compute(const Piece& piece, size_t slot) {
  const HostPart& part = *piece.part;
  at::Tensor value = staged_value(piece, slot);
  AdamWPointers all{nullptr, part.exp_avg.mutable_data_ptr<float>() + piece.begin,
                    part.exp_avg_sq.mutable_data_ptr<float>() + piece.begin,
                    slots_[slot].grad.const_data_ptr<float>()};
  if (part.master.defined()) {
    all.value = part.master.mutable_data_ptr<float>() + piece.begin;
    all.rounded = reinterpret_cast<uint16_t*>(value.mutable_data_ptr<at::BFloat16>());
  } else {
    all.value = value.mutable_data_ptr<float>();
  }
  update_on_host(all, piece.count, part.coefficients);
}

void StagedUpdate::copy_up(const Piece& piece, size_t slot) {
  const c10::OptionalStreamGuard guard(streams_ ? std::optional(streams_->up) : std::nullopt);
  piece.part->value.narrow(0, piece.begin, piece.count)
      .copy_(staged_value(piece, slot), /*non_blocking=*/streams_.has_value());
  if (streams_) streams_->up_done[slot].record(streams_->up);
}

void StagedUpdate::update(const std::vector<HostPart>& parts) {
  std::vector<Piece> pieces;
  for (const HostPart& part : parts) {
    for (int64_t begin = 0; begin < part.grad.numel(); begin += chunk_elements_) {
      pieces.push_back({&part, begin, std::min(chunk_elements_, part.grad.numel() - begin)});
    }
  }
  if (!pieces.empty()) copy_down(pieces[0], 0);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const size_t slot = i % 2;
    if (i + 1 < pieces.size()) copy_down(pieces[i + 1], 1 - slot);
    if (streams_) {
      streams_->down_done[slot].synchronize();
      streams_->up_done[slot].synchronize();  // of the chunk before the last, or the step before
    }
    compute(pieces[i], slot);
    copy_up(pieces[i], slot);
  }
  if (!streams_) return;
  for (const c10::Event& done : streams_->up_done) done.block(current_stream(device_));
}

}  // namespace moetron
