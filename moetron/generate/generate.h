// Text from a model: one token after another, with a cache of keys and values.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace moetron {

class Model;

struct GenerateSettings {
  int64_t max_new_tokens = 128;
  bool greedy = false;  // the likeliest token; else a draw
  double temperature = 1.0;
  double top_p = 1.0;  // draw from the smallest set of likeliest tokens that has this probability
  uint64_t seed = 1234;
  std::optional<int32_t> end_token;  // stops after it
};

// The new tokens, without the prompt. `on_token` (may be empty) sees each as it comes. ConfigError
// for an empty prompt, a token outside the vocabulary, or a temperature or top-p out of range.
std::vector<int32_t> generate(Model& model, const std::vector<int32_t>& prompt,
                              const GenerateSettings& settings,
                              const std::function<void(int32_t)>& on_token = {});

}  // namespace moetron
