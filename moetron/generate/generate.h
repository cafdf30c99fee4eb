// Texts from a model: one token after another, of several texts at once.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "moetron/generate/sampling.h"

namespace moetron {

class TextReader;

struct GenerateSettings {
  int64_t max_new_tokens = 128;
  SamplingSettings sampling = {};
  uint64_t seed = 1234;
  std::vector<int32_t> end_tokens = {};  // a text stops after any of them
};

// A prompt, and which draws continue it: the same (seed, sample) draws the same, whatever is
// generated beside it.
struct TextToContinue {
  std::vector<int32_t> prompt;
  uint64_t sample = 0;
  // What the reader knows the text by; as far as it has read the prompt, it goes on from there.
  int64_t sequence = 0;
};

// `text`: its place in the list.
using OnToken = std::function<void(size_t text, int32_t token)>;

// The new tokens of each text, without the prompt, all of them in a step together. `on_token` (may
// be empty) sees each as it comes. The reader keeps what it has read of the texts (without the last
// token of each). Every rank gives the same and gets the same. ConfigError for an empty prompt, one
// that is too long for the model, a token outside the vocabulary, or a setting out of range;
// InputError where the model's logits are not finite.
std::vector<std::vector<int32_t>> generate(TextReader& reader,
                                           const std::vector<TextToContinue>& texts,
                                           const GenerateSettings& settings,
                                           const OnToken& on_token = {});

}  // namespace moetron
