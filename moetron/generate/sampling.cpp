#include "moetron/generate/sampling.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"

namespace moetron {
namespace {

at::Tensor penalised(const at::Tensor& logits, const std::vector<int32_t>& text, double penalty) {
  if (penalty == 1 || text.empty()) return logits;
  at::Tensor result = logits.clone();
  const at::Tensor tokens = at::tensor(text, at::kInt).to(at::kLong);
  const at::Tensor seen = logits.index_select(0, tokens);
  result.index_put_({tokens}, at::where(seen.gt(0), seen / penalty, seen * penalty));
  return result;
}

}  // namespace

void check_sampling(const SamplingSettings& s) {
  MT_CHECK_CONFIG(s.temperature >= 0, "temperature (", s.temperature, ") must be at least 0");
  MT_CHECK_CONFIG(s.top_p > 0 && s.top_p <= 1, "top-p (", s.top_p, ") must lie in (0, 1]");
  MT_CHECK_CONFIG(s.top_k >= 0, "top-k (", s.top_k, ") must be at least 0");
  MT_CHECK_CONFIG(s.repetition_penalty > 0, "repetition-penalty (", s.repetition_penalty,
                  ") must be above 0");
}

int32_t choose_token(const at::Tensor& given, const std::vector<int32_t>& text,
                     const SamplingSettings& s, const RandomStream& random, uint64_t index) {
  MT_CHECK_INPUT(given.isfinite().all().item<bool>(),
                 "the model gives logits that are not finite for new token ", index + 1,
                 ": its weights are damaged, or too large for their type");
  const at::Tensor logits = penalised(given, text, s.repetition_penalty);
  if (s.greedy || s.temperature == 0) return static_cast<int32_t>(logits.argmax().item<int64_t>());
  // Less makes no difference to fp32 logits, but quotients that are no numbers.
  constexpr double kLeastTemperature = 1e-100;
  const at::Tensor below_best = logits.to(at::kDouble) - logits.max().to(at::kDouble);
  const at::Tensor probabilities =
      (below_best / std::max(s.temperature, kLeastTemperature)).softmax(-1);
  auto [sorted, tokens] = at::sort(probabilities, std::optional<bool>(true), -1, true);
  if (s.top_k > 0 && s.top_k < sorted.size(0)) {
    sorted = sorted.narrow(0, 0, s.top_k);
    sorted = sorted / sorted.sum();
  }
  const at::Tensor cumulative = sorted.cumsum(-1);
  // Kept: every token before which less than top_p has been gathered; at least the first.
  const int64_t kept =
      std::max<int64_t>((cumulative - sorted).lt(s.top_p).sum().item<int64_t>(), 1);
  const double target = random.uniform(index) * cumulative[kept - 1].item<double>();
  const int64_t place = cumulative.narrow(0, 0, kept).le(target).sum().item<int64_t>();
  return static_cast<int32_t>(tokens[std::min(place, kept - 1)].item<int64_t>());
}

}  // namespace moetron
