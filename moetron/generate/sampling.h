// Which token comes next: a draw from a model's logits.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

class RandomStream;

// In the order in which transformers applies them: penalty, temperature, top-k, top-p.
struct SamplingSettings {
  bool greedy = false;              // the likeliest token; else a draw
  double repetition_penalty = 1.0;  // of tokens that the text holds: divides logits above 0,
                                    // multiplies those below (Keskar et al., arXiv 1909.05858)
  double temperature = 1.0;         // 0: greedy
  int64_t top_k = 0;                // draw from so many likeliest tokens; 0: all
  double top_p = 1.0;  // draw from the smallest set of likeliest tokens that has this probability
};

// Throws ConfigError, naming the option, for what is out of range.
void check_sampling(const SamplingSettings& settings);

// logits [vocab] fp32 in host memory; `text`: the tokens before. The draw is number `index` of the
// stream. InputError where a logit is not finite.
int32_t choose_token(const at::Tensor& logits, const std::vector<int32_t>& text,
                     const SamplingSettings& settings, const RandomStream& random, uint64_t index);

}  // namespace moetron
