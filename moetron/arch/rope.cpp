#include "moetron/arch/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// YaRN's temperature m(factor, a) = 0.1 a ln(factor) + 1.
double yarn_mscale(double factor, double a) {
  return factor <= 1.0 ? 1.0 : 0.1 * a * std::log(factor) + 1.0;
}

// theta^(-2i / dim), in fp32 as the published models were trained.
std::vector<float> plain_frequencies(const RopeConfig& rope) {
  std::vector<float> result(static_cast<size_t>(rope.dim / 2));
  for (size_t i = 0; i < result.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.dim);
    result[i] = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
  }
  return result;
}

// Keeps the frequencies that turn more than beta_fast times within the original length, divides
// those that turn less than beta_slow times by the factor, and blends between.
void apply_yarn(const RopeConfig& rope, std::vector<float>& frequencies) {
  const auto dim = static_cast<double>(rope.dim);
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  const auto correction = [&](double rotations) {
    return dim * std::log(original / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  const double low = std::max(std::floor(correction(rope.beta_fast)), 0.0);
  double high = std::min(std::ceil(correction(rope.beta_slow)), dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const auto ramp =
        static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    const float slowed = frequencies[i] / static_cast<float>(rope.factor);
    frequencies[i] = slowed * ramp + frequencies[i] * (1.0f - ramp);
  }
}

// Llama 3.1: wavelengths longer than original / low_freq_factor are stretched by the factor, those
// shorter than original / high_freq_factor stay, and those between are blended.
void apply_llama3(const RopeConfig& rope, std::vector<float>& frequencies) {
  const auto original = static_cast<float>(rope.original_max_position_embeddings);
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  for (float& frequency : frequencies) {
    const float wavelength = 2.0f * std::numbers::pi_v<float> / frequency;
    if (wavelength > original / low) {
      frequency /= factor;
    } else if (wavelength >= original / high) {
      const float smooth = (original / wavelength - low) / (high - low);
      frequency = (1.0f - smooth) * frequency / factor + smooth * frequency;
    }
  }
}

}  // namespace

std::vector<float> inverse_frequencies(const RopeConfig& rope) {
  MT_CHECK(rope.dim > 0 && rope.dim % 2 == 0, "rope dim ", rope.dim, " is not even");
  std::vector<float> result = plain_frequencies(rope);
  switch (rope.type) {
    case RopeType::kDefault:
      break;
    case RopeType::kLinear:
      for (float& frequency : result) frequency /= static_cast<float>(rope.factor);
      break;
    case RopeType::kYarn:
      apply_yarn(rope, result);
      break;
    case RopeType::kLlama3:
      apply_llama3(rope, result);
      break;
  }
  return result;
}

float rope_cos_sin_scale(const RopeConfig& rope) {
  if (rope.type != RopeType::kYarn) return 1.0f;
  if (rope.attention_factor) return static_cast<float>(*rope.attention_factor);
  const double mscale = rope.mscale.value_or(0.0);
  const double all_dim = rope.mscale_all_dim.value_or(0.0);
  if (mscale == 0.0 || all_dim == 0.0) return static_cast<float>(yarn_mscale(rope.factor, 1.0));
  return static_cast<float>(yarn_mscale(rope.factor, mscale) / yarn_mscale(rope.factor, all_dim));
}

float attention_softmax_scale(const ModelConfig& config) {
  double scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim));
  if (config.mla && config.rope.type == RopeType::kYarn) {
    const double all_dim = config.rope.mscale_all_dim.value_or(0.0);
    if (all_dim != 0.0) scale *= std::pow(yarn_mscale(config.rope.factor, all_dim), 2);
  }
  return static_cast<float>(scale);
}

}  // namespace moetron
