#include "moetron/generate/generate.h"

#include <algorithm>
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/generate/reader_fixture.h"
#include "moetron/models/model.h"

namespace moetron {
namespace {

ModelConfig tiny_qwen() {
  return read_model_config(parse_json(R"({"model_type": "qwen3_moe", "vocab_size": 40,
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "intermediate_size": 48, "moe_intermediate_size": 16, "num_experts": 8,
    "num_experts_per_tok": 2, "norm_topk_prob": true, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false,
    "initializer_range": 0.3})",
                                      "tiny"),
                           "tiny");
}

class GenerateTest : public ::testing::Test {
 protected:
  GenerateTest() : model_(tiny_qwen()) { model_.initialize(5); }
  // Of one prompt.
  std::vector<int32_t> continued(const std::vector<int32_t>& prompt,
                                 const GenerateSettings& settings) {
    std::vector<int32_t> tokens;
    with_reader(model_, [&](TextReader& reader) {
      tokens = generate(reader, {{prompt}}, settings).front();
    });
    return tokens;
  }

  Model model_;
  std::vector<int32_t> prompt_ = {3, 1, 4, 1, 5};
};

// The cache must not change what a full forward of the whole text would choose.
TEST_F(GenerateTest, GreedyWithCacheEqualsFullForwards) {
  const auto generated = continued(prompt_, {.max_new_tokens = 20, .sampling = {.greedy = true}});
  std::vector<int64_t> text(prompt_.begin(), prompt_.end());
  for (const int32_t token : generated) {
    const at::Tensor logits = model_.logits(at::tensor(text, at::kLong).unsqueeze(0));
    EXPECT_EQ(logits[0][-1].argmax().item<int64_t>(), token);
    text.push_back(token);
  }
  EXPECT_EQ(generated.size(), 20u);
}

TEST_F(GenerateTest, DrawsFollowTheSeedAndTopP) {
  GenerateSettings settings{.max_new_tokens = 12, .sampling = {.temperature = 1.5}};
  const auto first = continued(prompt_, settings);
  EXPECT_EQ(continued(prompt_, settings), first);
  settings.seed = 99;
  EXPECT_NE(continued(prompt_, settings), first);
  settings.sampling.top_p = 1e-6;  // only the likeliest is left
  EXPECT_EQ(continued(prompt_, settings),
            continued(prompt_, {.max_new_tokens = 12, .sampling = {.greedy = true}}));
}

TEST_F(GenerateTest, TemperaturesNearZeroAreGreedy) {
  const auto greedy = continued(prompt_, {.max_new_tokens = 12, .sampling = {.greedy = true}});
  for (const double temperature : {0.0, 5e-324, 1e-310, 1e-300, 1e-30})
    EXPECT_EQ(continued(prompt_, {.max_new_tokens = 12, .sampling = {.temperature = temperature}}),
              greedy)
        << temperature;
}

TEST_F(GenerateTest, LogitsThatAreNoNumbersAreAnError) {
  for (Parameter* parameter : model_.parameters())
    parameter->value().view(-1)[0] = std::numeric_limits<float>::quiet_NaN();
  for (const bool greedy : {true, false})
    EXPECT_THROW(continued(prompt_, {.max_new_tokens = 1, .sampling = {.greedy = greedy}}),
                 InputError);
}

TEST_F(GenerateTest, DrawsHaveTheProbabilitiesOfTheSoftmax) {
  const at::Tensor logits =
      model_.logits(at::tensor(std::vector<int64_t>(prompt_.begin(), prompt_.end()), at::kLong)
                        .unsqueeze(0))[0][-1];
  const at::Tensor wanted = logits.softmax(-1);
  const int64_t draws = 400;
  std::map<int32_t, int64_t> counts;
  for (int64_t seed = 0; seed < draws; ++seed) {
    counts[continued(prompt_, {.max_new_tokens = 1, .seed = static_cast<uint64_t>(seed)})[0]]++;
  }
  for (const auto& [token, count] : counts) {
    const double p = wanted[token].item<double>();
    const double deviation = std::sqrt(p * (1 - p) * draws);
    EXPECT_NEAR(static_cast<double>(count), p * draws, 5 * deviation + 1);
  }
}

TEST_F(GenerateTest, MistakesNameTheirOption) {
  EXPECT_THROW(continued({}, {}), ConfigError);
  EXPECT_THROW(continued({40}, {}), ConfigError);
  EXPECT_THROW(continued(prompt_, {.sampling = {.temperature = -1}}), ConfigError);
  EXPECT_THROW(continued(prompt_, {.sampling = {.top_p = 0}}), ConfigError);
  EXPECT_THROW(continued(prompt_, {.max_new_tokens = 64}), ConfigError);
  const auto generated = continued(prompt_, {.max_new_tokens = 20, .sampling = {.greedy = true}});
  const auto stopped = continued(
      prompt_,
      {.max_new_tokens = 20, .sampling = {.greedy = true}, .end_tokens = {generated[2], 99}});
  const auto place = std::find(generated.begin(), generated.end(), generated[2]);
  EXPECT_EQ(stopped.size(), static_cast<size_t>(place - generated.begin()) + 1);
}

}  // namespace
}  // namespace moetron
