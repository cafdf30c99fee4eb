#include "moetron/optim/host_update.h"

#include <algorithm>
#include <sys/mman.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr int64_t kGrain = int64_t{1} << 15;  // elements below which a thread is not worth waking
constexpr int64_t kPage = 4096;               // bytes after which addresses look alike to a cache
constexpr int64_t kPageElements = kPage / 4;
constexpr int64_t kApart = 256;  // bytes; arrays farther apart were slower again

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

int64_t page_offset(const void* address) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(address) % kPage);
}

// A tenth faster from one thread where four streams are walked. It must come before the first
// write; a kernel that has none to give is no mistake.
void ask_for_huge_pages(const at::Tensor& storage) {
#ifdef MADV_HUGEPAGE
  const auto begin = reinterpret_cast<uintptr_t>(storage.const_data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + storage.nbytes()) / kPage * kPage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Bytes between the addresses within their pages, round the page's end if that is nearer.
int64_t distance(int64_t a, int64_t b) {
  const int64_t apart = std::abs(a - b) % kPage;
  return std::min(apart, kPage - apart);
}

// The part's elements [begin, begin + count), with value and gradient of these alone on the host.
void update_range(const HostPart& part, int64_t begin, int64_t count, at::Tensor value,
                  const at::Tensor& grad) {
  AdamWPointers all{nullptr, part.exp_avg.mutable_data_ptr<float>() + begin,
                    part.exp_avg_sq.mutable_data_ptr<float>() + begin,
                    grad.const_data_ptr<float>()};
  if (part.master.defined()) {
    all.value = part.master.mutable_data_ptr<float>() + begin;
    all.rounded = reinterpret_cast<uint16_t*>(value.mutable_data_ptr<at::BFloat16>());
  } else {
    all.value = value.mutable_data_ptr<float>();
  }
  at::parallel_for(0, count, kGrain, [&](int64_t first, int64_t last) {
    adamw_update({all.value + first, all.exp_avg + first, all.exp_avg_sq + first, all.grad + first,
                  all.rounded == nullptr ? nullptr : all.rounded + first},
                 last - first, part.coefficients);
  });
}

}  // namespace

void update_on_host(const HostPart& part) {
  update_range(part, 0, part.grad.numel(), part.value, part.grad);
}

at::Tensor zeros_apart_from(const std::vector<const void*>& others, int64_t count) {
  const at::Tensor storage = at::empty({count + kPage / 4}, at::kFloat);
  ask_for_huge_pages(storage);
  storage.zero_();
  int64_t shift = 0;  // bytes
  const auto is_near = [&](const void* other) {
    return distance(page_offset(storage.const_data_ptr()) + shift, page_offset(other)) < kApart;
  };
  while (std::any_of(others.begin(), others.end(), is_near)) shift += kApart;
  MT_CHECK(shift < kPage, others.size(), " arrays leave no room in a page");
  return storage.narrow(0, shift / 4, count);
}

StagedUpdate::StagedUpdate(c10::Device device, bool pinned, int64_t chunk_elements)
    : device_(device), pinned_(pinned), chunk_elements_(chunk_elements) {
  MT_CHECK(chunk_elements % kPageElements == 0, "a chunk of ", chunk_elements, " elements");
  const at::Tensor storage = empty_on_host(2 * chunk_elements + kPageElements);
  for (int64_t i = 0; i < 2; ++i) {
    slots_[i] = storage.narrow(0, i * chunk_elements + kApart / 4, chunk_elements);
  }
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  const auto event = [&] { return c10::Event(device.type()); };
  streams_ = Streams{guard.getStreamFromGlobalPool(device),
                     guard.getStreamFromGlobalPool(device),
                     event(),
                     {event(), event()},
                     {event(), event()}};
}

// [count] fp32, of which the first element begins a page.
at::Tensor StagedUpdate::empty_on_host(int64_t count) const {
  if (pinned_) return at::empty({count}, at::TensorOptions(at::kFloat).pinned_memory(true));
  const at::Tensor storage = at::empty({count + kPageElements}, at::kFloat);
  ask_for_huge_pages(storage);
  return storage.narrow(0, (kPage - page_offset(storage.const_data_ptr())) % kPage / 4, count);
}

// Consecutive elements from the beginning of a page, at most so many. Allocated by several chunks
// at once, for pinned memory comes in powers of two only.
at::Tensor StagedUpdate::take_room(int64_t most) {
  constexpr int64_t kChunks = 4;
  if (!room_.defined() || room_.numel() == 0) room_ = empty_on_host(kChunks * chunk_elements_);
  const at::Tensor taken = room_.narrow(0, 0, std::min(most, room_.numel()));
  room_ = room_.slice(0, (taken.numel() + kPageElements - 1) / kPageElements * kPageElements);
  return taken;
}

std::vector<const void*> StagedUpdate::add_part(const at::Tensor& grad) {
  const size_t part = first_pieces_.size(), first = pieces_.size();
  first_pieces_.push_back(first);
  for (int64_t begin = 0; begin < grad.numel(); begin += pieces_.back().count()) {
    const at::Tensor host_grad = take_room(std::min(chunk_elements_, grad.numel() - begin));
    pieces_.push_back({part, begin, grad.narrow(0, begin, host_grad.numel()), host_grad});
  }
  // The other pieces and slots lie at the same places within pages.
  return {pieces_.at(first).host_grad.const_data_ptr(), slots_[0].const_data_ptr()};
}

void StagedUpdate::grad_done(size_t part) {
  if (streams_ && !pinned_) return;
  begin();
  for (size_t i = first_pieces_.at(part); i < pieces_.size() && pieces_[i].part == part; ++i) {
    copy_grad(pieces_[i]);
  }
}

void StagedUpdate::begin() {
  if (!streams_) return;
  streams_->ready.record(current_stream(device_));
  streams_->ready.block(streams_->down);
  streams_->ready.block(streams_->up);
}

at::Tensor StagedUpdate::staged_value(const Piece& piece, const HostPart& part, size_t slot) const {
  return slots_[slot].view(part.value.scalar_type()).narrow(0, 0, piece.count());
}

void StagedUpdate::copy_grad(Piece& piece) {
  const c10::OptionalStreamGuard guard(streams_ ? std::optional(streams_->down) : std::nullopt);
  piece.host_grad.copy_(piece.grad, /*non_blocking=*/streams_.has_value());
  piece.is_copied = true;
}

// A value without master is itself what the host updates.
void StagedUpdate::copy_down(Piece& piece, const HostPart& part, size_t slot) {
  if (!piece.is_copied) copy_grad(piece);
  const c10::OptionalStreamGuard guard(streams_ ? std::optional(streams_->down) : std::nullopt);
  if (!part.master.defined()) {
    if (streams_) streams_->up_done[slot].block(streams_->down);
    staged_value(piece, part, slot)
        .copy_(part.value.narrow(0, piece.begin, piece.count()), streams_.has_value());
  }
  if (streams_) streams_->down_done[slot].record(streams_->down);
}

void StagedUpdate::copy_up(const Piece& piece, const HostPart& part, size_t slot) {
  const c10::OptionalStreamGuard guard(streams_ ? std::optional(streams_->up) : std::nullopt);
  part.value.narrow(0, piece.begin, piece.count())
      .copy_(staged_value(piece, part, slot), /*non_blocking=*/streams_.has_value());
  if (streams_) streams_->up_done[slot].record(streams_->up);
}

void StagedUpdate::update(const std::vector<HostPart>& parts) {
  MT_CHECK(parts.size() == first_pieces_.size(), parts.size(), " parts of ", first_pieces_.size());
  const auto part_of = [&](size_t i) -> const HostPart& { return parts[pieces_[i].part]; };
  if (!pieces_.empty()) copy_down(pieces_[0], part_of(0), 0);
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const size_t slot = i % 2;
    if (i + 1 < pieces_.size()) copy_down(pieces_[i + 1], part_of(i + 1), 1 - slot);
    if (streams_) {
      streams_->down_done[slot].synchronize();
      streams_->up_done[slot].synchronize();  // of the chunk before the last, or the step before
    }
    Piece& piece = pieces_[i];
    update_range(part_of(i), piece.begin, piece.count(), staged_value(piece, part_of(i), slot),
                 piece.host_grad);
    copy_up(piece, part_of(i), slot);
    piece.is_copied = false;
  }
  if (!streams_) return;
  for (const c10::Event& done : streams_->up_done) done.block(current_stream(device_));
}

}  // namespace moetron
