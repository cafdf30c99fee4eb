// The AdamW update on the host: of tensors that lie there, and of parameters on a device whose
// optimizer states lie on the host (Ren et al., "ZeRO-Offload", arXiv 2101.06840). Of those the
// gradients come and the new values go in chunks, copied while the host computes on others.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include "moetron/optim/fused_loops.h"

namespace moetron {

// One pass over memory, on all threads.
void update_on_host(const AdamWPointers& all, int64_t count, const AdamWCoefficients& c);

// Zeros, [count] fp32 on the host, placed for a loop that walks them together with `others`: arrays
// whose addresses agree in the last 12 bits hinder each other in the caches, to less than half the
// speed.
at::Tensor zeros_apart_from(const std::vector<const void*>& others, int64_t count);

// Consecutive elements of a parameter.
struct HostPart {
  at::Tensor value;       // [elements] fp32 or bf16, on the device
  at::Tensor grad;        // [elements] fp32, on the device
  at::Tensor exp_avg;     // [elements] fp32, on the host
  at::Tensor exp_avg_sq;  // [elements] fp32, on the host
  at::Tensor master;      // [elements] fp32, on the host; undefined where the value is fp32
  AdamWCoefficients coefficients;
};

class StagedUpdate {
 public:
  // Room for the gradients and values of two chunks on the host, `pinned` for copies that are fast
  // and run beside it. `chunk_elements`: a multiple of 1024.
  StagedUpdate(c10::Device device, bool pinned, int64_t chunk_elements = int64_t{1} << 21);

  // For zeros_apart_from(): what the host walks together with a part's states.
  std::vector<const void*> staging() const;

  // What the current stream has been given up to here is done before anything is copied.
  void begin();
  // Writes values, moments and masters. The host waits for its own work alone: the copies of values
  // end on streams of their own, for which the current stream waits.
  void update(const std::vector<HostPart>& parts);

 private:
  // Where a chunk lies while the host works on it.
  struct Slot {
    at::Tensor grad;   // [chunk] fp32
    at::Tensor value;  // [chunk] fp32, or of 2 * chunk bf16 the first half
  };
  struct Piece {
    const HostPart* part;
    int64_t begin;
    int64_t count;
  };
  // Of a GPU. The copies to and from it run at the same time; an event a slot.
  struct Streams {
    c10::Stream down, up;
    c10::Event ready;
    std::array<c10::Event, 2> down_done, up_done;
  };

  void copy_down(const Piece& piece, size_t slot);
  void copy_up(const Piece& piece, size_t slot);
  at::Tensor staged_value(const Piece& piece, size_t slot) const;  // of the value's dtype
  void compute(const Piece& piece, size_t slot);

  c10::Device device_;
  int64_t chunk_elements_;
  std::array<Slot, 2> slots_;
  std::optional<Streams> streams_;  // none where the device is the host
};

}  // namespace moetron
