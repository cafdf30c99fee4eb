#include "moetron/optim/adamw.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/adamw.h"

namespace moetron {
namespace {

constexpr int64_t kAlignment = 64;  // elements; no stretch is cut between its multiples

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
  c.eps = static_cast<float>(settings.eps * std::sqrt(correction2));
  c.minus_step_size = static_cast<float>(-lr * std::sqrt(correction2) / correction1);
  return c;
}

struct Divided {
  std::vector<OwnedStretch> on_device, on_host;
};

// So that the host gets `fraction` of the elements. The last of the forward: their gradients are
// complete first, and their values are needed last.
Divided divide(const std::vector<OwnedStretch>& owned, double fraction) {
  int64_t total = 0;
  for (const OwnedStretch& stretch : owned) total += stretch.value.numel();
  int64_t left = total - std::llround(fraction * static_cast<double>(total));  // for the device
  Divided divided;
  for (const OwnedStretch& stretch : owned) {
    const int64_t count = stretch.value.numel();
    const int64_t cut = left >= count ? count : left / kAlignment * kAlignment;
    left -= std::min(left, count);
    const auto part = [&](int64_t begin, int64_t end) {
      return OwnedStretch{stretch.parameter, stretch.begin + begin,
                          stretch.value.slice(0, begin, end), stretch.grad.slice(0, begin, end)};
    };
    if (cut > 0) divided.on_device.push_back(part(0, cut));
    if (cut < count) divided.on_host.push_back(part(cut, count));
  }
  return divided;
}

// Widened where the master lies: a GPU has no room to spare for it.
void copy_to_master(const at::Tensor& value, at::Tensor& master) {
  master.copy_(value.to(master.device()));
}

}  // namespace

AdamW::AdamW(const std::vector<OwnedStretch>& owned, AdamWSettings settings,
             OffloadSettings offload)
    : settings_(settings) {
  MT_CHECK_CONFIG(settings.beta1 >= 0 && settings.beta1 < 1, "adam-beta1 (", settings.beta1,
                  ") must lie in [0, 1)");
  MT_CHECK_CONFIG(settings.beta2 >= 0 && settings.beta2 < 1, "adam-beta2 (", settings.beta2,
                  ") must lie in [0, 1)");
  MT_CHECK_CONFIG(settings.eps >= 0, "adam-eps (", settings.eps, ") must not be negative");
  MT_CHECK_CONFIG(settings.weight_decay >= 0, "weight-decay (", settings.weight_decay,
                  ") must not be negative");
  MT_CHECK_CONFIG(offload.fraction >= 0 && offload.fraction <= 1, "optimizer-offload-fraction (",
                  offload.fraction, ") must lie in [0, 1]");
  const Divided divided = divide(owned, offload.fraction);
  if (!divided.on_host.empty() && !divided.on_host[0].value.is_cpu()) {
    staged_.emplace(divided.on_host[0].value.device(), offload.pin);
  }
  for (const OwnedStretch& stretch : divided.on_device) add_state(stretch, stretch.value.is_cpu());
  for (const OwnedStretch& stretch : divided.on_host) add_state(stretch, true);
}

void AdamW::add_state(const OwnedStretch& owned, bool on_host) {
  const at::Tensor& value = owned.value;
  const std::string& label = owned.parameter->label();
  MT_CHECK(value.scalar_type() == at::kFloat || value.scalar_type() == at::kBFloat16, label,
           " is neither F32 nor BF16");
  MT_CHECK(value.is_contiguous() && owned.grad.is_contiguous() &&
               owned.grad.scalar_type() == at::kFloat && owned.grad.numel() == value.numel(),
           label, ": the gradient does not fit the value");
  State state{owned};
  state.is_staged = on_host && !value.is_cpu();
  std::vector<const void*> walked = {owned.grad.const_data_ptr(), value.const_data_ptr()};
  if (state.is_staged) {
    staged_parts_.try_emplace(owned.parameter, staged_parts_.size());
    walked = staged_->add_part(owned.grad);
  }
  const auto zeros = [&] {
    if (!on_host) return at::zeros(value.sizes(), value.options().dtype(at::kFloat));
    const at::Tensor made = zeros_apart_from(walked, value.numel());
    walked.push_back(made.const_data_ptr());
    return made;
  };
  state.exp_avg = zeros();
  state.exp_avg_sq = zeros();
  if (value.scalar_type() != at::kFloat) {
    state.master = zeros();
    copy_to_master(value, state.master);
  }
  states_.push_back(std::move(state));
}

void AdamW::grad_done(Parameter& parameter) {
  const auto part = staged_parts_.find(&parameter);
  if (part == staged_parts_.end()) return;
  parameter.settle_grad();
  staged_->grad_done(part->second);
}

void AdamW::step(double lr, int64_t step, double grad_scale) {
  MT_CHECK(step >= 1, "optimizer steps count from 1, not ", step);
  const at::NoGradGuard no_grad;
  if (staged_) staged_->begin();
  std::vector<HostPart> staged;
  for (State& state : states_) {
    at::Tensor& value = state.owned.value;
    const at::Tensor& grad = state.owned.grad;
    state.owned.parameter->value_changed();
    const AdamWCoefficients c = coefficients(settings_, lr, step, grad_scale,
                                             state.owned.parameter->settings().weight_decay);
    const HostPart part{value, grad, state.exp_avg, state.exp_avg_sq, state.master, c};
    if (state.is_staged) {
      staged.push_back(part);
    } else if (value.is_cpu()) {
      update_on_host(part);
    } else {
      adamw_update_on_gpu(value, state.master, state.exp_avg, state.exp_avg_sq, grad, c);
    }
  }
  if (staged_) staged_->update(staged);
}

void AdamW::reset_masters() {
  for (State& state : states_) {
    if (state.master.defined()) copy_to_master(state.owned.value, state.master);
  }
}

std::vector<OwnedStretch> AdamW::trained() const {
  std::vector<OwnedStretch> all;
  for (const State& state : states_) {
    all.push_back(state.owned);
    if (state.master.defined()) all.back().value = state.master;
  }
  return all;
}

int64_t AdamW::state_bytes(c10::DeviceType where) const {
  int64_t bytes = 0;
  for (const State& state : states_) {
    for (const at::Tensor& tensor : {state.exp_avg, state.exp_avg_sq, state.master}) {
      if (tensor.defined() && tensor.device().type() == where) {
        bytes += static_cast<int64_t>(tensor.nbytes());
      }
    }
  }
  return bytes;
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
