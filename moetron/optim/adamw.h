// AdamW with decoupled weight decay (Loshchilov and Hutter, "Decoupled Weight Decay
// Regularization", ICLR 2019), the arithmetic of torch.optim.AdamW. Moments are fp32; a parameter
// whose value is not fp32 has an fp32 master copy that the value is rounded from after every step.
// A rank keeps state for what it owns alone (parallel/gradient_buckets.h): with a distributed
// optimizer the replicas of a parameter divide it, and a share of it may lie on the host.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/optim/host_update.h"
#include "moetron/parallel/gradient_buckets.h"

namespace moetron {

struct AdamWSettings {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;  // only where ParameterSettings::weight_decay
};

// For parameters on a GPU: moments and masters that lie on the host, and are updated there. On a
// CPU all of them do.
struct OffloadSettings {
  double fraction = 0;  // of the elements, in [0, 1]: the last of the forward
  bool pin = false;     // the host memory that gradients and new values pass through
};

class AdamW {
 public:
  // `owned`: values fp32 or bf16, on one device. Masters begin as copies of the values.
  AdamW(const std::vector<OwnedStretch>& owned, AdamWSettings settings,
        OffloadSettings offload = {});

  // The parameter's accumulator is what step() will find: what of it the host needs comes from here
  // on, while the backward goes on. The update itself has to wait for the norm of all gradients.
  void grad_done(Parameter& parameter);

  // One update with the accumulators as they are, each multiplied by `grad_scale` (the clip
  // coefficient). `step` counts from 1.
  void step(double lr, int64_t step, double grad_scale = 1);

  // Masters from the values: for weights that were loaded or initialised after construction,
  // without optimizer state.
  void reset_masters();

  // What is trained, with the gradients: `value` is the fp32 master where there is one. One stretch
  // or two of each that the constructor was given; the tensors stay the same.
  std::vector<OwnedStretch> trained() const;

  // Of moments and masters that lie there.
  int64_t state_bytes(c10::DeviceType where) const;

  // Everything a checkpoint must hold of this rank, as slices under "exp_avg.NAME",
  // "exp_avg_sq.NAME" and "master.NAME" with the Hugging Face name of each piece; a stretch that
  // cuts a tensor within a row gives several. The views share memory with the optimizer, so loading
  // writes into them.
  std::vector<NamedSlice> states() const;

 private:
  struct State {
    OwnedStretch owned;
    at::Tensor exp_avg;      // [elements] fp32
    at::Tensor exp_avg_sq;   // [elements] fp32
    at::Tensor master;       // [elements] fp32; undefined where the value itself is fp32
    bool is_staged = false;  // updated on the host, while value and gradient are on a device
  };

  void add_state(const OwnedStretch& owned, bool on_host);

  AdamWSettings settings_;
  std::optional<StagedUpdate> staged_;
  std::unordered_map<const Parameter*, size_t> staged_parts_;
  std::vector<State> states_;
};

}  // namespace moetron
