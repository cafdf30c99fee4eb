#include "moetron/kernels/router.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/router.h"
#endif

namespace moetron {

#ifdef MOETRON_CUDA
namespace {

// In x's own memory where it lies in a row; undefined stays so.
at::Tensor in_a_row(const at::Tensor& x) {
  return x.defined() ? x.contiguous() : x;
}

template <class T>
const T* data_or_null(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<T>() : nullptr;
}

}  // namespace

bool has_router_kernel(const at::Tensor& logits) {
  return logits.is_cuda() && logits.size(-1) <= kMostExperts &&
         (logits.scalar_type() == at::kFloat || logits.scalar_type() == at::kBFloat16);
}

RouterScores router_forward(const at::Tensor& logits, const at::Tensor& bias,
                            const at::Tensor& earlier, const RouterRule& rule,
                            const at::Tensor& counts, int64_t num_counted) {
  MT_CHECK(has_router_kernel(logits) && logits.dim() == 2, "logits of shape ", logits.sizes(),
           ", type ", logits.scalar_type());
  const int64_t tokens = logits.size(0), num_experts = logits.size(1);
  MT_CHECK(rule.top_k <= num_experts && num_experts % rule.num_groups == 0 &&
               counts.numel() == num_experts && counts.is_contiguous() && num_counted <= tokens &&
               (!earlier.defined() || earlier.numel() == tokens * rule.top_k) &&
               (!bias.defined() || bias.numel() == num_experts),
           "top ", rule.top_k, " of ", num_experts, " experts in ", rule.num_groups, " groups, ",
           counts.numel(), " counts");
  const at::TensorOptions fp32 = logits.options().dtype(at::kFloat);
  const at::Tensor logits_used = logits.contiguous(), bias_used = in_a_row(bias);
  RouterScores out{.scores = at::empty({tokens, num_experts}, fp32),
                   .chosen = in_a_row(earlier),
                   .weights = at::empty({tokens, rule.top_k}, fp32)};
  if (!earlier.defined()) {
    out.chosen = at::empty({tokens, rule.top_k}, logits.options().dtype(at::kLong));
  }
  if (tokens == 0) return out;
  launch_router_forward(
      {.logits = logits_used.const_data_ptr(),
       .is_bf16 = logits.scalar_type() == at::kBFloat16,
       .bias = data_or_null<float>(bias_used),
       .earlier = earlier.defined() ? out.chosen.const_data_ptr<int64_t>() : nullptr,
       .scores = out.scores.mutable_data_ptr<float>(),
       .chosen = earlier.defined() ? nullptr : out.chosen.mutable_data_ptr<int64_t>(),
       .weights = out.weights.mutable_data_ptr<float>(),
       .counts = counts.mutable_data_ptr<int64_t>(),
       .tokens = tokens,
       .num_counted = num_counted,
       .num_experts = static_cast<int>(num_experts),
       .rule = rule},
      current_stream(logits));
  return out;
}

at::Tensor router_backward(const at::Tensor& d_weights, const at::Tensor& d_scores,
                           const RouterScores& forward, const RouterRule& rule,
                           at::ScalarType dtype) {
  MT_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "d_logits of type ", dtype);
  const at::Tensor& scores = forward.scores;
  const int64_t tokens = scores.size(0), num_experts = scores.size(1);
  MT_CHECK((!d_weights.defined() || d_weights.numel() == tokens * rule.top_k) &&
               (!d_scores.defined() || d_scores.numel() == scores.numel()),
           "gradients of ", tokens, " x ", num_experts, " scores");
  const at::Tensor d_logits = at::empty(scores.sizes(), scores.options().dtype(dtype));
  if (tokens == 0) return d_logits;
  const at::Tensor d_weights_used = in_a_row(d_weights), d_scores_used = in_a_row(d_scores);
  launch_router_backward({.d_weights = data_or_null<float>(d_weights_used),
                          .d_scores = data_or_null<float>(d_scores_used),
                          .scores = scores.const_data_ptr<float>(),
                          .chosen = forward.chosen.const_data_ptr<int64_t>(),
                          .d_logits = d_logits.mutable_data_ptr(),
                          .is_bf16 = dtype == at::kBFloat16,
                          .tokens = tokens,
                          .num_experts = static_cast<int>(num_experts),
                          .rule = rule},
                         current_stream(scores));
  return d_logits;
}
#else
bool has_router_kernel(const at::Tensor&) {
  return false;
}

RouterScores router_forward(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const RouterRule&, const at::Tensor&, int64_t) {
  throw InternalError("kernel of the router in a build without CUDA");
}

at::Tensor router_backward(const at::Tensor&, const at::Tensor&, const RouterScores&,
                           const RouterRule&, at::ScalarType) {
  throw InternalError("kernel of the router in a build without CUDA");
}
#endif

}  // namespace moetron
