// The AdamW update on the host: of tensors that lie there, and of parameters on a device whose
// optimizer states lie on the host (Ren et al., "ZeRO-Offload", arXiv 2101.06840). Of those the
// gradients come to the host while the backward goes on, or else in chunks, as the new values go,
// copied while the host computes on others.
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

// Consecutive elements of a parameter, whose states lie on the host.
struct HostPart {
  at::Tensor value;       // [elements] fp32 or bf16
  at::Tensor grad;        // [elements] fp32
  at::Tensor exp_avg;     // [elements] fp32
  at::Tensor exp_avg_sq;  // [elements] fp32
  at::Tensor master;      // [elements] fp32; undefined where the value is fp32
  AdamWCoefficients coefficients;
};

// Where value and gradient lie on the host too: one pass over memory, on all threads.
void update_on_host(const HostPart& part);

// Zeros, [count] fp32 on the host, placed for a loop that walks them together with `others`: in
// huge pages where the system has them, and a little apart from each within a page, for arrays
// whose addresses agree in many bits evict each other from the caches, down to a third of the
// speed.
at::Tensor zeros_apart_from(const std::vector<const void*>& others, int64_t count);

// Where value and gradient lie on another device.
class StagedUpdate {
 public:
  // `pinned`: the memory on the host that gradients and values pass through, for copies that are
  // fast and run beside host and device. `chunk_elements`: a multiple of 1024.
  StagedUpdate(c10::Device device, bool pinned, int64_t chunk_elements = int64_t{1} << 22);

  // Makes room on the host for one more gradient, [elements] fp32 on the device; parts are numbered
  // from 0. Returns what the host walks together with the part's states, for zeros_apart_from().
  std::vector<const void*> add_part(const at::Tensor& grad);

  // Nothing changes this part's gradient before the next update(), and the current stream has been
  // given all that makes it: it is copied from here on. Without pinned memory it is not, for that
  // would make the host wait for the backward.
  void grad_done(size_t part);

  // What the current stream has been given up to here is done before anything is copied.
  void begin();
  // Writes values, moments and masters; `parts` are those added, in their order. The host waits for
  // its own work alone: the copies of values end on streams of their own, for which the current
  // stream waits.
  void update(const std::vector<HostPart>& parts);

 private:
  // At most a chunk of a part.
  struct Piece {
    size_t part;
    int64_t begin;         // in the part
    at::Tensor grad;       // [count] fp32, on the device
    at::Tensor host_grad;  // [count] fp32
    bool is_copied = false;
    int64_t count() const { return grad.numel(); }
  };
  // Of a GPU. The copies to and from it run at the same time; an event a slot.
  struct Streams {
    c10::Stream down, up;
    c10::Event ready;
    std::array<c10::Event, 2> down_done, up_done;
  };

  at::Tensor empty_on_host(int64_t count) const;
  at::Tensor take_room(int64_t most);
  void copy_grad(Piece& piece);
  void copy_down(Piece& piece, const HostPart& part, size_t slot);
  void copy_up(const Piece& piece, const HostPart& part, size_t slot);
  // Where the piece's values lie while the host works on them.
  at::Tensor staged_value(const Piece& piece, const HostPart& part, size_t slot) const;

  c10::Device device_;
  bool pinned_;
  int64_t chunk_elements_;
  at::Tensor room_;  // for gradients to come
  std::vector<Piece> pieces_;
  std::vector<size_t> first_pieces_;  // of each part
  std::array<at::Tensor, 2> slots_;   // [chunk] fp32, or of 2 * chunk bf16 the first half
  std::optional<Streams> streams_;    // none where the device is the host
};

}  // namespace moetron
