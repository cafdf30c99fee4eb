// The second of a save's three parts (checkpoint.h): what this rank holds at one moment. Nothing
// here communicates.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include <ATen/core/Tensor.h>

#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/save_plan.h"

namespace moetron {

class SaveSnapshot {
 public:
  // Copies what this rank gives, no more, to host memory of this object: once it returns, the
  // weights and states may change. Takes as much memory as this rank gives bytes (of replicas, each
  // gives a part), which the next copy uses again: not before the write of the last one has
  // returned. InternalError where the plan is not one for `content`.
  void copy(const SavePlan& plan, const CheckpointContent& content);

  // Refers to the tensors of `content` and takes no memory: they must stay as they are until the
  // write has returned. InternalError where the plan is not one for `content`.
  void borrow(const SavePlan& plan, CheckpointContent content);

  // config, trainer and the like; without slices where they were copied.
  const CheckpointContent& content() const { return content_; }
  // Of the plan that it was made by; empty before copy() or borrow().
  const std::string& layout() const { return layout_; }

  // What this rank gives to the block, packed: [bytes], uint8, in host memory. Of a copy, a view of
  // its memory.
  at::Tensor packed(const SavePlan& plan, const FileBlock& block) const;
  // The same, put in its places of the whole block.
  void place(const SavePlan& plan, const FileBlock& block, std::span<std::byte> bytes) const;

 private:
  std::span<const NamedSlice> slices_of(const FileBlock& block) const;

  CheckpointContent content_;
  std::string layout_;
  bool is_copy_ = false;
  at::Tensor memory_;  // what this rank gives to the blocks, one after the other
};

}  // namespace moetron
