#include "moetron/optim/adamw.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/optim/fused_loops.h"

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

}  // namespace

AdamW::AdamW(const std::vector<Parameter*>& parameters, AdamWSettings settings)
    : settings_(settings), parameters_(parameters) {
  MT_CHECK_CONFIG(settings.beta1 >= 0 && settings.beta1 < 1, "adam-beta1 (", settings.beta1,
                  ") must lie in [0, 1)");
  MT_CHECK_CONFIG(settings.beta2 >= 0 && settings.beta2 < 1, "adam-beta2 (", settings.beta2,
                  ") must lie in [0, 1)");
  MT_CHECK_CONFIG(settings.eps >= 0, "adam-eps (", settings.eps, ") must not be negative");
  MT_CHECK_CONFIG(settings.weight_decay >= 0, "weight-decay (", settings.weight_decay,
                  ") must not be negative");
  for (Parameter* parameter : parameters) {
    if (parameter->is_tied() || !parameter->settings().trainable) continue;
    const at::Tensor& value = parameter->value();
    MT_CHECK(value.is_contiguous() && value.is_cpu(), parameter->label(),
             " is not a contiguous tensor in the CPU's memory");
    MT_CHECK(value.scalar_type() == at::kFloat || value.scalar_type() == at::kBFloat16,
             parameter->label(), " is neither F32 nor BF16");
    const at::TensorOptions fp32 = value.options().dtype(at::kFloat);
    State state{parameter, at::zeros(value.sizes(), fp32), at::zeros(value.sizes(), fp32), {}};
    if (value.scalar_type() != at::kFloat) state.master = value.to(at::kFloat);
    states_.push_back(std::move(state));
  }
}

void AdamW::step(double lr, int64_t step, double grad_scale) {
  MT_CHECK(step >= 1, "optimizer steps count from 1, not ", step);
  for (State& state : states_) {
    Parameter& parameter = *state.parameter;
    if (!parameter.has_grad()) continue;
    const at::Tensor& grad = parameter.grad();
    MT_CHECK(grad.is_contiguous() && grad.scalar_type() == at::kFloat &&
                 grad.numel() == state.exp_avg.numel(),
             parameter.label(), ": the gradient does not fit the value");
    const AdamWCoefficients c =
        coefficients(settings_, lr, step, grad_scale, parameter.settings().weight_decay);
    const bool has_master = state.master.defined();
    at::Tensor& trained = has_master ? state.master : parameter.value();
    const AdamWPointers all{
        trained.mutable_data_ptr<float>(), state.exp_avg.mutable_data_ptr<float>(),
        state.exp_avg_sq.mutable_data_ptr<float>(), grad.const_data_ptr<float>()};
    auto* rounded =
        has_master ? reinterpret_cast<uint16_t*>(parameter.value().mutable_data_ptr<at::BFloat16>())
                   : nullptr;
    at::parallel_for(0, grad.numel(), kGrain, [&](int64_t first, int64_t last) {
      update_range(all, rounded, first, last, c);
    });
  }
}

void AdamW::zero_grads() {
  for (Parameter* parameter : parameters_) {
    if (parameter->has_grad()) parameter->grad().zero_();
  }
}

void AdamW::reset_masters() {
  for (State& state : states_) {
    if (state.master.defined()) state.master.copy_(state.parameter->value());
  }
}

std::vector<NamedSlice> AdamW::states() const {
  std::vector<NamedSlice> all;
  const auto add = [&](const Parameter& parameter, const at::Tensor& tensor, const char* prefix) {
    if (!tensor.defined()) return;
    for (NamedSlice& slice : parameter.slices(tensor, prefix)) all.push_back(std::move(slice));
  };
  for (const State& state : states_) {
    add(*state.parameter, state.exp_avg, "exp_avg.");
    add(*state.parameter, state.exp_avg_sq, "exp_avg_sq.");
    add(*state.parameter, state.master, "master.");
  }
  return all;
}

}  // namespace moetron
