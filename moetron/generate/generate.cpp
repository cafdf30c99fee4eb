#include "moetron/generate/generate.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"
#include "moetron/models/model.h"
#include "moetron/nn/attention.h"

namespace moetron {
namespace {

void check(const Model& model, const std::vector<int32_t>& prompt, const GenerateSettings& s) {
  MT_CHECK_CONFIG(!prompt.empty(), "prompt: holds no token");
  MT_CHECK_CONFIG(s.temperature >= 0, "temperature (", s.temperature, ") must be at least 0");
  MT_CHECK_CONFIG(s.top_p > 0 && s.top_p <= 1, "top-p (", s.top_p, ") must lie in (0, 1]");
  const int64_t vocab_size = model.config().vocab_size;
  for (const int32_t token : prompt) {
    MT_CHECK_CONFIG(token >= 0 && token < vocab_size, "prompt: token ", token,
                    " is outside the model's vocabulary (", vocab_size, ")");
  }
  const int64_t longest = model.config().max_position_embeddings;
  const int64_t wanted = static_cast<int64_t>(prompt.size()) + s.max_new_tokens;
  MT_CHECK_CONFIG(wanted <= longest, "prompt (", prompt.size(), " tokens) and max-new-tokens (",
                  s.max_new_tokens, ") exceed the model's max_position_embeddings (", longest, ")");
}

// logits [vocab] fp32 -> a token. The draw is number `index` of the seed's stream.
int32_t choose(const at::Tensor& logits, const GenerateSettings& s, const RandomStream& random,
               uint64_t index) {
  MT_CHECK_INPUT(logits.isfinite().all().item<bool>(),
                 "the model gives logits that are not finite "
                 "for new token ",
                 index + 1, ": its weights are damaged, or too large for their type");
  if (s.greedy || s.temperature == 0) return static_cast<int32_t>(logits.argmax().item<int64_t>());
  // Less makes no difference to fp32 logits, but quotients that are no numbers.
  constexpr double kLeastTemperature = 1e-100;
  const at::Tensor below_best = logits.to(at::kDouble) - logits.max().to(at::kDouble);
  const at::Tensor probabilities =
      (below_best / std::max(s.temperature, kLeastTemperature)).softmax(-1);
  const auto [sorted, tokens] = at::sort(probabilities, std::optional<bool>(true), -1, true);
  const at::Tensor cumulative = sorted.cumsum(-1);
  // Kept: every token before which less than top_p has been gathered; at least the first.
  const int64_t kept =
      std::max<int64_t>((cumulative - sorted).lt(s.top_p).sum().item<int64_t>(), 1);
  const double target = random.uniform(index) * cumulative[kept - 1].item<double>();
  const int64_t place = cumulative.narrow(0, 0, kept).le(target).sum().item<int64_t>();
  return static_cast<int32_t>(tokens[std::min(place, kept - 1)].item<int64_t>());
}

}  // namespace

std::vector<int32_t> generate(Model& model, const std::vector<int32_t>& prompt,
                              const GenerateSettings& settings,
                              const std::function<void(int32_t)>& on_token) {
  check(model, prompt, settings);
  const at::NoGradGuard no_grad;
  const RandomStream random(settings.seed, 0, "generate");
  KeyValueCache cache(model.config().num_layers);
  std::vector<int32_t> generated;
  std::vector<int64_t> next(prompt.begin(), prompt.end());
  int64_t position = 0;
  while (static_cast<int64_t>(generated.size()) < settings.max_new_tokens) {
    const at::Tensor tokens = at::tensor(next, at::kLong).unsqueeze(0);  // [1, new]
    const at::Tensor logits = model.logits(tokens, position, &cache);    // [1, 1, vocab]
    position += tokens.size(1);
    const int32_t token =
        choose(logits[0][0].to(at::kCPU, at::kFloat), settings, random, generated.size());
    generated.push_back(token);
    if (on_token) on_token(token);
    if (std::ranges::find(settings.end_tokens, token) != settings.end_tokens.end()) break;
    next = {token};
  }
  return generated;
}

}  // namespace moetron
