#include "moetron/optim/adamw.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/optim/fused_loops.h"
#include "moetron/optim/tensor_update.h"

namespace moetron {
namespace {

constexpr int64_t kGrain = int64_t{1} << 15;  // elements below which a thread is not worth waking
constexpr int64_t kBlock = 4096;

AdamWCoefficients coefficients(const AdamWSettings& settings, double lr, int64_t step,
                               double grad_scale, bool decay) {
  const double correction1 = 1 - std::pow(settings.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(settings.beta2, static_cast<double>(step));
  AdamWCoefficients c;
  c.grad_scale = static_cast<float>(grad_scale);
  c.keep = static_cast<float>(decay ? 1 - lr * settings.weight_decay : 1);
  c.one_minus_beta1 = static_cast<float>(1 - settings.beta1);
  c.beta2 = static_cast<float>(settings.beta2);
  c.one_minus_beta2 = static_cast<float>(1 - settings.beta2);
  c.sqrt_correction2 = static_cast<float>(std::sqrt(correction2));
  c.eps = static_cast<float>(settings.eps);
  c.minus_step_size = static_cast<float>(-lr / correction1);
  return c;
}

// Elements [first, last), in blocks small enough that the rounding finds the masters in the cache.
void update_range(const AdamWPointers& all, uint16_t* rounded, int64_t first, int64_t last,
                  const AdamWCoefficients& c) {
  for (int64_t begin = first; begin < last; begin += kBlock) {
    const int64_t count = std::min(kBlock, last - begin);
    const AdamWPointers part{all.value + begin, all.exp_avg + begin, all.exp_avg_sq + begin,
                             all.grad + begin};
    adamw_update(part, count, c);
    if (rounded != nullptr) round_to_bf16(part.value, rounded + begin, count);
  }
}

// On the CPU: one pass over memory, on all threads.
void update_on_host(at::Tensor& trained, at::Tensor& exp_avg, at::Tensor& exp_avg_sq,
                    const at::Tensor& grad, uint16_t* rounded, const AdamWCoefficients& c) {
  const AdamWPointers all{trained.mutable_data_ptr<float>(), exp_avg.mutable_data_ptr<float>(),
                          exp_avg_sq.mutable_data_ptr<float>(), grad.const_data_ptr<float>()};
  at::parallel_for(0, grad.numel(), kGrain, [&](int64_t first, int64_t last) {
    update_range(all, rounded, first, last, c);
  });
}

}  // namespace

AdamW::AdamW(const std::vector<OwnedStretch>& owned, AdamWSettings settings) : settings_(settings) {
  MT_CHECK_CONFIG(settings.beta1 >= 0 && settings.beta1 < 1, "adam-beta1 (", settings.beta1,
                  ") must lie in [0, 1)");
  MT_CHECK_CONFIG(settings.beta2 >= 0 && settings.beta2 < 1, "adam-beta2 (", settings.beta2,
                  ") must lie in [0, 1)");
  MT_CHECK_CONFIG(settings.eps >= 0, "adam-eps (", settings.eps, ") must not be negative");
  MT_CHECK_CONFIG(settings.weight_decay >= 0, "weight-decay (", settings.weight_decay,
                  ") must not be negative");
  for (const OwnedStretch& stretch : owned) {
    const at::Tensor& value = stretch.value;
    const std::string& label = stretch.parameter->label();
    MT_CHECK(value.scalar_type() == at::kFloat || value.scalar_type() == at::kBFloat16, label,
             " is neither F32 nor BF16");
    MT_CHECK(value.is_contiguous() && stretch.grad.is_contiguous() &&
                 stretch.grad.scalar_type() == at::kFloat && stretch.grad.numel() == value.numel(),
             label, ": the gradient does not fit the value");
    const at::TensorOptions fp32 = value.options().dtype(at::kFloat);
    State state{stretch, at::zeros(value.sizes(), fp32), at::zeros(value.sizes(), fp32), {}};
    if (value.scalar_type() != at::kFloat) state.master = value.to(at::kFloat);
    states_.push_back(std::move(state));
  }
}

void AdamW::step(double lr, int64_t step, double grad_scale) {
  MT_CHECK(step >= 1, "optimizer steps count from 1, not ", step);
  const at::NoGradGuard no_grad;
  for (State& state : states_) {
    at::Tensor& value = state.owned.value;
    const at::Tensor& grad = state.owned.grad;
    const AdamWCoefficients c = coefficients(settings_, lr, step, grad_scale,
                                             state.owned.parameter->settings().weight_decay);
    const bool has_master = state.master.defined();
    at::Tensor& trained = has_master ? state.master : value;
    if (value.is_cpu()) {
      auto* rounded = has_master
                          ? reinterpret_cast<uint16_t*>(value.mutable_data_ptr<at::BFloat16>())
                          : nullptr;
      update_on_host(trained, state.exp_avg, state.exp_avg_sq, grad, rounded, c);
    } else {
      adamw_update_tensors(trained, state.exp_avg, state.exp_avg_sq, grad, c);
      if (has_master) value.copy_(state.master);
    }
  }
}

void AdamW::reset_masters() {
  for (State& state : states_) {
    if (state.master.defined()) state.master.copy_(state.owned.value);
  }
}

std::vector<NamedSlice> AdamW::states() const {
  std::vector<NamedSlice> all;
  const auto add = [&](const OwnedStretch& owned, const at::Tensor& tensor, const char* prefix) {
    if (!tensor.defined()) return;
    for (NamedSlice& slice : owned.parameter->slices_of_stretch(tensor, owned.begin, prefix)) {
      all.push_back(std::move(slice));
    }
  };
  for (const State& state : states_) {
    add(state.owned, state.exp_avg, "exp_avg.");
    add(state.owned, state.exp_avg_sq, "exp_avg_sq.");
    add(state.owned, state.master, "master.");
  }
  return all;
}

}  // namespace moetron
