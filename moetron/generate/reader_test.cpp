#include "moetron/generate/reader.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/arch/config_reader.h"
#include "moetron/base/json.h"
#include "moetron/generate/generate.h"
#include "moetron/generate/reader_fixture.h"

namespace moetron {
namespace {

constexpr uint64_t kSeed = 11;

// Grouped queries with experts and a tied head, and latent attention with a dense first layer.
std::vector<ModelConfig> models() {
  const char* const kQwen = R"({"model_type": "qwen3_moe", "vocab_size": 41, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 48, "moe_intermediate_size": 16, "num_experts": 8,
    "num_experts_per_tok": 2, "norm_topk_prob": true, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
    "initializer_range": 0.3})";
  const char* const kDeepseek = R"({"model_type": "deepseek_v3", "vocab_size": 41,
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 48, "moe_intermediate_size": 16, "n_routed_experts": 8,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "norm_topk_prob": true, "routed_scaling_factor": 1.0,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "initializer_range": 0.3})";
  std::vector<ModelConfig> configs;
  for (const char* text : {kQwen, kDeepseek})
    configs.push_back(read_model_config(parse_json(text, "tiny"), "tiny"));
  return configs;
}

const std::vector<std::vector<int32_t>> kPrompts = {{3, 1, 4, 1, 5, 9, 2}, {6}, {5, 3, 5, 8}};

// Whatever has been read before, and beside it: the logits are those of the whole text.
TEST(TextReader, ReadsInPiecesAndTogetherWhatAForwardOfTheWholeGives) {
  for (const ModelConfig& config : models()) {
    Model model(config);
    model.initialize(kSeed);
    const auto whole = [&](std::vector<int64_t> text) {
      return model.logits(at::tensor(text, at::kLong).unsqueeze(0))[0][-1];
    };
    with_reader(model, [&](TextReader& reader) {
      at::Tensor logits = reader.read({{4, {3, 1, 4}}, {2, {6}}});
      EXPECT_EQ(logits.sizes(), (at::IntArrayRef{2, config.vocab_size}));
      EXPECT_TRUE(at::allclose(logits[0], whole({3, 1, 4}), 1e-4, 1e-5));
      EXPECT_TRUE(at::allclose(logits[1], whole({6}), 1e-4, 1e-5));
      logits = reader.read({{2, {7}}, {4, {1, 5, 9}}});
      EXPECT_TRUE(at::allclose(logits[0], whole({6, 7}), 1e-4, 1e-5));
      EXPECT_TRUE(at::allclose(logits[1], whole({3, 1, 4, 1, 5, 9}), 1e-4, 1e-5));
      reader.truncate(4, 2);
      reader.truncate(2, 0);
      EXPECT_EQ(reader.length(4), 2);
      EXPECT_EQ(reader.length(2), 0);
      logits = reader.read({{4, {8, 8}}, {2, {9}}});
      EXPECT_TRUE(at::allclose(logits[0], whole({3, 1, 8, 8}), 1e-4, 1e-5));
      EXPECT_TRUE(at::allclose(logits[1], whole({9}), 1e-4, 1e-5));
    });
  }
}

// A model that is divided says what the whole one says, on every rank, draws included.
TEST(TextReader, EveryLayoutGivesTheTextsOfOneRank) {
  struct Case {
    const char* name;
    ParallelSizes sizes;
  };
  const std::vector<Case> cases = {
      {"one rank", parallel_sizes(1, 1, 1, 1, 1)}, {"TP2", parallel_sizes(2, 2, 1, 1, 1)},
      {"EP2", parallel_sizes(2, 1, 1, 2, 1)},      {"TPE2 EP2", parallel_sizes(4, 2, 1, 2, 2)},
      {"PP2", parallel_sizes(2, 1, 2, 1, 1)},      {"TP2 EP2 PP2", parallel_sizes(4, 2, 2, 2, 1)}};
  for (const ModelConfig& config : models()) {
    for (const double temperature : {0.0, 1.0}) {
      std::vector<std::vector<int32_t>> wanted;
      for (const Case& each : cases) {
        std::vector<std::vector<std::vector<int32_t>>> got(static_cast<size_t>(each.sizes.world));
        with_reader(config, each.sizes, kSeed, [&](TextReader& reader, int rank) {
          std::vector<TextToContinue> texts;
          for (const auto& prompt : kPrompts)
            texts.push_back({prompt, 0, static_cast<int64_t>(texts.size())});
          got[static_cast<size_t>(rank)] =
              generate(reader, texts,
                       {.max_new_tokens = 12, .sampling = {.temperature = temperature}, .seed = 3});
        });
        if (wanted.empty()) wanted = got.front();
        for (const auto& texts : got)
          EXPECT_EQ(texts, wanted) << each.name << ", temperature " << temperature;
      }
    }
  }
}

// Each text of a batch is the one that it is alone; samples differ.
TEST(TextReader, TextsOfABatchDoNotTouchEachOther) {
  Model model(models().front());
  model.initialize(kSeed);
  const GenerateSettings settings{.max_new_tokens = 10, .seed = 8, .end_tokens = {7, 12}};
  std::vector<TextToContinue> texts;
  for (uint64_t sample = 0; sample < 3; ++sample) {
    for (const auto& prompt : kPrompts)
      texts.push_back({prompt, sample, static_cast<int64_t>(texts.size())});
  }
  std::vector<std::vector<int32_t>> together;
  with_reader(model, [&](TextReader& reader) { together = generate(reader, texts, settings); });
  for (size_t i = 0; i < texts.size(); ++i) {
    with_reader(model, [&](TextReader& reader) {
      EXPECT_EQ(generate(reader, {texts[i]}, settings).front(), together[i]) << i;
    });
  }
  EXPECT_NE(together[0], together[3]);
}

}  // namespace
}  // namespace moetron
