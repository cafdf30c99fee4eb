#include "moetron/checkpoint/save_snapshot.h"

#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

void check_fits(const SavePlan& plan, const CheckpointContent& content) {
  MT_CHECK(plan.layout() == layout_of(content),
           "a snapshot holds other tensors, or other parts of them, than its save was planned for");
}

}  // namespace

void SaveSnapshot::copy(const SavePlan& plan, const CheckpointContent& content) {
  borrow(plan, content);
  const auto needed = static_cast<int64_t>(plan.bytes_given());
  if (!memory_.defined() || memory_.numel() < needed) {
    memory_ = at::Tensor();  // not both at once
    memory_ = at::empty({needed}, at::kByte);
  }
  const std::span<std::byte> memory = bytes_of(memory_);
  for (uint64_t index = 0; index < plan.num_blocks(); ++index) {
    const ByteRange given = plan.given(index);
    if (given.begin == given.end) continue;
    const FileBlock block = plan.block(index);
    pack_slices(block, plan.rank(), slices_of(block),
                memory.subspan(given.begin, given.end - given.begin));
  }
  content_.weights.clear();
  content_.states.clear();
  is_copy_ = true;
}

void SaveSnapshot::borrow(const SavePlan& plan, CheckpointContent content) {
  check_fits(plan, content);
  content_ = std::move(content);
  layout_ = plan.layout();
  is_copy_ = false;
}

at::Tensor SaveSnapshot::packed(const SavePlan& plan, const FileBlock& block) const {
  const ByteRange given = plan.given(block.index);
  const auto begin = static_cast<int64_t>(given.begin), end = static_cast<int64_t>(given.end);
  if (is_copy_) return memory_.narrow(0, begin, end - begin);
  const at::Tensor packed = at::empty({end - begin}, at::kByte);
  pack_slices(block, plan.rank(), slices_of(block), bytes_of(packed));
  return packed;
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
