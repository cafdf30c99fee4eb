// Text from a model: one token after another, with a cache of keys and values.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace moetron {

class Model;

struct GenerateSettings {
  int64_t max_new_tokens = 128;
  bool greedy = false;       // the likeliest token; else a draw
  double temperature = 1.0;  // 0: greedy
  double top_p = 1.0;  // draw from the smallest set of likeliest tokens that has this probability
  uint64_t seed = 1234;
  std::vector<int32_t> end_tokens;  // stops after any of them
};

// The new tokens, without the prompt. `on_token` (may be empty) sees each as it comes. ConfigError
// for an empty prompt, a token outside the vocabulary, or a temperature or top-p out of range;
// InputError where the model's logits are not finite.
std::vector<int32_t> generate(Model& model, const std::vector<int32_t>& prompt,
                              const GenerateSettings& settings,
                              const std::function<void(int32_t)>& on_token = {});

}  // namespace moetron
