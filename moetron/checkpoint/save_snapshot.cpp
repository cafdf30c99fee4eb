#include "moetron/checkpoint/save_snapshot.h"

#include <utility>

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

// The GPU that tensors lie on; none where all are on the host.
std::optional<c10::Device> gpu_of(const CheckpointContent& content) {
  for (const auto* slices : {&content.weights, &content.states}) {
    for (const NamedSlice& slice : *slices) {
      if (!slice.view.is_cpu()) return slice.view.device();
    }
  }
  return std::nullopt;
}

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

void check_fits(const SavePlan& plan, const CheckpointContent& content) {
  MT_CHECK(plan.layout() == layout_of(content),
           "a snapshot holds other tensors, or other parts of them, than its save was planned for");
}

}  // namespace

void SaveSnapshot::copy(const SavePlan& plan, const CheckpointContent& content) {
  borrow(plan, content);
  const std::optional<c10::Device> gpu = gpu_of(content_);
  copies_.clear();  // views of rooms that may go
  make_rooms(plan, /*pinned=*/gpu.has_value());
  if (!gpu) {
    pack(plan);
  } else {
    const c10::impl::VirtualGuardImpl guard(gpu->type());
    if (!stream_) stream_ = guard.getStreamFromGlobalPool(*gpu);
    c10::Event ready(gpu->type());
    ready.record(current_stream(*gpu));
    ready.block(*stream_);
    const c10::StreamGuard on(*stream_);
    pack(plan);
    if (!copied_) copied_.emplace(gpu->type());
    copied_->record(*stream_);
  }
  is_copy_ = true;
  // What a GPU still copies from must not be freed before: content_ keeps it.
  if (gpu) return;
  content_.weights.clear();
  content_.states.clear();
}

// A block's part lies in one room. Pinned memory comes in powers of two: one room for all of it
// would take up to twice the bytes.
void SaveSnapshot::make_rooms(const SavePlan& plan, bool pinned) {
  constexpr int64_t kRoomBytes = int64_t{1} << 30;
  struct Part {
    size_t room;
    int64_t begin, bytes;
  };
  std::vector<Part> parts;
  std::vector<int64_t> used{0};
  for (uint64_t index = 0; index < plan.num_blocks(); ++index) {
    const ByteRange given = plan.given(index);
    const auto bytes = static_cast<int64_t>(given.end - given.begin);
    if (used.back() + bytes > kRoomBytes) used.push_back(0);
    parts.push_back({used.size() - 1, used.back(), bytes});
    used.back() += bytes;
  }
  rooms_.resize(used.size());
  for (size_t room = 0; room < used.size(); ++room) {
    at::Tensor& memory = rooms_[room];
    const bool fits = memory.defined() && memory.numel() >= used[room];
    if (!fits) memory = at::Tensor();  // not both at once
    if (!fits) memory = at::empty({used[room]}, at::TensorOptions(at::kByte).pinned_memory(pinned));
  }
  copies_.clear();
  for (const Part& part : parts) {
    copies_.push_back(rooms_[part.room].narrow(0, part.begin, part.bytes));
  }
}

void SaveSnapshot::pack(const SavePlan& plan) {
  JoinedCopies copies;  // a room holds one block's part behind the other
  const at::Tensor* previous = nullptr;
  for (uint64_t index = 0; index < plan.num_blocks(); ++index) {
    if (copies_[index].numel() == 0) continue;
    if (previous != nullptr && !copies_[index].is_alias_of(*previous)) copies.flush();
    previous = &copies_[index];
    const FileBlock block = plan.block(index);
    pack_slices(block, plan.rank(), slices_of(block), bytes_of(copies_[index]), copies);
  }
  copies.flush();
}

void SaveSnapshot::hold_changes() const {
  if (is_copy_ && copied_) copied_->block(current_stream(copied_->device()));
}

void SaveSnapshot::wait() const {
  if (is_copy_ && copied_) copied_->synchronize();
}

void SaveSnapshot::borrow(const SavePlan& plan, CheckpointContent content) {
  check_fits(plan, content);
  content_ = std::move(content);
  layout_ = plan.layout();
  is_copy_ = false;
}

at::Tensor SaveSnapshot::packed(const SavePlan& plan, const FileBlock& block) const {
  if (is_copy_) return copies_.at(block.index);
  const ByteRange given = plan.given(block.index);
  const at::Tensor packed = at::empty({static_cast<int64_t>(given.end - given.begin)}, at::kByte);
  JoinedCopies copies;
  pack_slices(block, plan.rank(), slices_of(block), bytes_of(packed), copies);
  copies.flush();
  return packed;
}

std::span<const std::byte> SaveSnapshot::whole(const FileBlock& block) const {
  if (!is_copy_) return {};
  const std::span<const std::byte> copied = bytes_of(copies_.at(block.index));
  return copied.size() == block.bytes() ? copied : std::span<const std::byte>();
}

void SaveSnapshot::place(const SavePlan& plan, const FileBlock& block,
                         std::span<std::byte> bytes) const {
  if (is_copy_) return place_packed(block, plan.rank(), bytes_of(packed(plan, block)), bytes);
  place_slices(block, plan.rank(), slices_of(block), bytes);
}

std::span<const NamedSlice> SaveSnapshot::slices_of(const FileBlock& block) const {
  return block.file->content == FileContent::kWeights ? content_.weights : content_.states;
}

}  // namespace moetron
