#include "moetron/arch/rope.h"

#include <cmath>

#include <gtest/gtest.h>

namespace moetron {
namespace {

void expect_close(float actual, double expected) {
  EXPECT_NEAR(actual, expected, 3e-7 * std::abs(expected));
}

RopeConfig deepseek_rope() {
  RopeConfig rope;
  rope.type = RopeType::kYarn;
  rope.dim = 64;
  rope.factor = 40;
  rope.original_max_position_embeddings = 4096;
  rope.mscale = 1.0;
  rope.mscale_all_dim = 1.0;
  return rope;
}

ModelConfig deepseek_model(double mscale) {
  ModelConfig config;
  config.family = ModelConfig::Family::kDeepseekV3;
  config.mla = MlaConfig{0, 512, 128, 64, 128};
  config.head_dim = 192;
  config.rope = deepseek_rope();
  config.rope.mscale = mscale;
  config.rope.mscale_all_dim = mscale;
  return config;
}

TEST(Rope, PlainFrequenciesAreExactPowers) {
  RopeConfig rope;
  rope.dim = 8;
  const auto frequencies = inverse_frequencies(rope);
  ASSERT_EQ(frequencies.size(), 4u);
  for (size_t i = 0; i < 4; ++i) expect_close(frequencies[i], std::pow(10.0, -double(i)));
  rope.type = RopeType::kLinear;
  rope.factor = 4;
  expect_close(inverse_frequencies(rope)[1], 0.025);
  EXPECT_EQ(rope_cos_sin_scale(rope), 1.0f);
}

TEST(Rope, YarnMatchesDeepseek) {
  const auto frequencies = inverse_frequencies(deepseek_rope());
  ASSERT_EQ(frequencies.size(), 32u);
  for (size_t i = 0; i <= 10; ++i) expect_close(frequencies[i], std::pow(10000.0, -double(i) / 32));
  expect_close(frequencies[11], 0.0390069266);
  expect_close(frequencies[12], 0.0268793601);
  expect_close(frequencies[16], 0.0055);
  expect_close(frequencies[20], 0.000790569415);
  expect_close(frequencies[22], 0.000177827941);
  expect_close(frequencies[23], 3.33380358e-5);
  for (size_t i = 23; i < 32; ++i)
    expect_close(frequencies[i], std::pow(10000.0, -double(i) / 32) / 40);
}

TEST(Rope, ScalesOfDeepseek) {
  expect_close(attention_softmax_scale(deepseek_model(1.0)), 0.13523377895);
  expect_close(attention_softmax_scale(deepseek_model(0.707)), 0.11472138679);
  EXPECT_EQ(rope_cos_sin_scale(deepseek_model(0.707).rope), 1.0f);
  ModelConfig plain = deepseek_model(1.0);
  plain.rope.type = RopeType::kDefault;
  expect_close(attention_softmax_scale(plain), 1.0 / std::sqrt(192.0));
}

TEST(Rope, YarnWithoutMscaleScalesCosAndSin) {
  RopeConfig rope = deepseek_rope();
  rope.mscale.reset();
  rope.mscale_all_dim.reset();
  expect_close(rope_cos_sin_scale(rope), 1.3688879454);
  rope.attention_factor = 1.25;
  EXPECT_EQ(rope_cos_sin_scale(rope), 1.25f);
}

TEST(Rope, Llama3MatchesPublishedNumbers) {
  RopeConfig rope;
  rope.type = RopeType::kLlama3;
  rope.dim = 128;
  rope.theta = 5e5;
  rope.factor = 8;
  rope.low_freq_factor = 1;
  rope.high_freq_factor = 4;
  rope.original_max_position_embeddings = 8192;
  const auto frequencies = inverse_frequencies(rope);
  const std::pair<size_t, double> expected[] = {{0, 1.0},
                                                {1, 0.814617234},
                                                {28, 0.00321144599},
                                                {29, 0.00216657076},
                                                {30, 0.00137189357},
                                                {33, 0.00031269375},
                                                {34, 0.000178507813},
                                                {35, 9.55621235e-5},
                                                {63, 3.06892599e-7}};
  // The blended ones are differences of nearly equal numbers, hence the wider tolerance.
  for (const auto& [i, value] : expected) EXPECT_NEAR(frequencies[i], value, 2e-6 * value) << i;
  EXPECT_EQ(rope_cos_sin_scale(rope), 1.0f);
}

}  // namespace
}  // namespace moetron
