// The second of a save's three parts (checkpoint.h): what this rank holds at one moment. Nothing
// here communicates.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/save_plan.h"

namespace moetron {

class SaveSnapshot {
 public:
  // Copies what this rank gives, no more, to host memory of this object. What lies on the host may
  // change once it returns. What lies on a GPU is copied beside what the GPU is given next, from
  // what it has been given so far: it may change behind hold_changes(). Takes as much memory
  // (pinned where any of it is on a GPU) as this rank gives bytes (of replicas, each gives a part),
  // which the next copy uses again: not before the write of the last one has returned.
  // InternalError where the plan is not one for `content`.
  void copy(const SavePlan& plan, const CheckpointContent& content);

  // The current stream waits for the copy: what it is given from here on may change the tensors.
  // The host does not wait.
  void hold_changes() const;
  // The host waits for the copy. From any thread.
  void wait() const;

  // Refers to the tensors of `content` and takes no memory: they must stay as they are until the
  // write has returned. InternalError where the plan is not one for `content`.
  void borrow(const SavePlan& plan, CheckpointContent content);

  // config, trainer and the like.
  const CheckpointContent& content() const { return content_; }
  // Of the plan that it was made by; empty before copy() or borrow().
  const std::string& layout() const { return layout_; }

  // What this rank gives to the block, packed: [bytes], uint8, in host memory. Of a copy, a view of
  // its memory.
  at::Tensor packed(const SavePlan& plan, const FileBlock& block) const;
  // The whole block, where this rank gives all of it and has copied it; else nothing.
  std::span<const std::byte> whole(const FileBlock& block) const;
  // What packed() returns, put in its places of the whole block.
  void place(const SavePlan& plan, const FileBlock& block, std::span<std::byte> bytes) const;

 private:
  void make_rooms(const SavePlan& plan, bool pinned);
  void pack(const SavePlan& plan);
  std::span<const NamedSlice> slices_of(const FileBlock& block) const;

  CheckpointContent content_;
  std::string layout_;
  bool is_copy_ = false;
  std::optional<c10::Stream> stream_;  // that copies from a GPU
  std::optional<c10::Event> copied_;   // none of what was on the host alone
  std::vector<at::Tensor> rooms_;      // host memory, [bytes] each
  std::vector<at::Tensor> copies_;     // what this rank gives to each block, in a room; [bytes]
};

}  // namespace moetron
