// A model as a whole and in stages: what each holds, and what it computes.
#include "moetron/models/model.h"

#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/arch/arch_test_data.h"
#include "moetron/arch/inventory.h"
#include "moetron/nn/attention.h"
#include "moetron/nn/loss.h"
#include "moetron/pipeline/block.h"

namespace moetron {
namespace {

constexpr uint64_t kSeed = 5;

ModelConfig model_config(const Json& json, bool is_tied) {
  Json changed = json;
  changed["tie_word_embeddings"] = is_tied;
  ModelConfig config = read_model_config(changed, "config.json");
  config.num_mtp_layers = 0;  // are not trained
  return config;
}

std::vector<ModelConfig> one_of_each_family() {
  std::vector<ModelConfig> configs;
  for (const bool is_tied : {false, true}) {
    for (const Json& json : {qwen3_moe_json(), moetron_json(), deepseek_v3_json(), llama_json()}) {
      configs.push_back(model_config(json, is_tied));
    }
  }
  return configs;
}

// The first layer and the rest, on two ranks.
std::vector<std::vector<StageLayers>> two_stages(const ModelConfig& config) {
  return {{{.first = 0, .count = 1, .has_embedding = true}},
          {{.first = 1, .count = config.num_layers - 1, .has_head = true}}};
}

std::map<std::string, at::Tensor> weights_of(const Model& model) {
  std::map<std::string, at::Tensor> weights;
  for (const NamedSlice& slice : model.weights()) {
    const bool is_new = weights.emplace(slice.name, slice.view).second;
    EXPECT_TRUE(is_new) << slice.name << " is there twice";
  }
  return weights;
}

TEST(Model, HoldsTheTensorsOfTheInventory) {
  for (const ModelConfig& config : one_of_each_family()) {
    const auto weights = weights_of(Model(config));
    const std::vector<TensorInfo> inventory = tensor_inventory(config);
    EXPECT_EQ(weights.size(), inventory.size()) << family_name(config.family);
    for (const TensorInfo& tensor : inventory) {
      const auto found = weights.find(tensor.name);
      ASSERT_NE(found, weights.end()) << tensor.name;
      EXPECT_EQ(found->second.sizes(), at::IntArrayRef(tensor.shape)) << tensor.name;
    }
  }
}

// Stages hold every weight once, with the values that the whole model begins with.
TEST(Model, StagesHoldTheWholeModelOnce) {
  for (const ModelConfig& config : one_of_each_family()) {
    Model whole(config);
    whole.initialize(kSeed);
    auto wanted = weights_of(whole);
    for (const std::vector<StageLayers>& stages : two_stages(config)) {
      Model part(config, {.stages = stages});
      part.initialize(kSeed);
      for (const auto& [name, value] : weights_of(part)) {
        const auto found = wanted.find(name);
        ASSERT_NE(found, wanted.end()) << name << " is in two stages";
        EXPECT_TRUE(at::equal(value, found->second)) << name;
        wanted.erase(found);
      }
    }
    EXPECT_TRUE(wanted.empty()) << family_name(config.family) << ": no stage holds "
                                << wanted.begin()->first;
  }
}

TEST(Model, KnowsAllUsesOfATiedWeight) {
  const ModelConfig config = model_config(qwen3_moe_json(), /*is_tied=*/true);
  const auto roles_of = [&](const std::vector<StageLayers>& stages) {
    Model model(config, {.stages = stages});
    EXPECT_EQ(model.ties().size(), 1u);
    EXPECT_EQ(model.ties()[0].places.size(), 2u);
    std::map<int64_t, Role> roles;  // by place
    for (const TiedUse& use : model.ties()[0].uses) roles[use.place] = use.parameter->role();
    return roles;
  };
  const int64_t head = 1 + config.num_layers;
  const auto parts = two_stages(config);
  using Roles = std::map<int64_t, Role>;
  EXPECT_EQ(roles_of({}), (Roles{{0, Role::kTrained}, {head, Role::kTrained}}));
  EXPECT_EQ(roles_of(parts[0]), (Roles{{0, Role::kTrained}}));
  EXPECT_EQ(roles_of(parts[1]), (Roles{{head, Role::kCopy}}));
  EXPECT_TRUE(Model(model_config(qwen3_moe_json(), false)).ties().empty());
}

// The loss of labels is what the logits say, each label as its weight says.
TEST(Model, ItsLossIsTheCrossEntropyOfItsLogits) {
  for (const ModelConfig& config : one_of_each_family()) {
    Model model(config);
    model.initialize(kSeed);
    const at::Tensor tokens = at::randint(config.vocab_size, {2, 6}, at::kLong);
    at::Tensor labels = at::randint(config.vocab_size, {2, 6}, at::kLong);
    labels[0][2] = kIgnoredLabel;
    MicroBatch micro_batch = make_micro_batch(tokens, labels);
    micro_batch.loss_weights = at::rand({2, 6}) + 0.5;
    ChunkRun run(model.chunks()[0], micro_batch);
    forward_chunk(run, {}, {.with_grad = false});

    const at::Tensor scores = at::log_softmax(model.logits(tokens), -1);
    const at::Tensor counts = labels != kIgnoredLabel;
    const at::Tensor chosen = scores.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1);
    const at::Tensor wanted = -(chosen * micro_batch.loss_weights).masked_select(counts).sum();
    EXPECT_NEAR(run.label_loss().item<double>(), wanted.item<double>(),
                1e-5 * wanted.item<double>())
        << family_name(config.family);
  }
}

TEST(Model, HasNoLogitsInAStage) {
  const ModelConfig config = model_config(llama_json(), false);
  for (const std::vector<StageLayers>& stages : two_stages(config)) {
    Model part(config, {.stages = stages});
    EXPECT_THROW(part.logits(at::zeros({1, 2}, at::kLong)), InternalError);
  }
}

}  // namespace
}  // namespace moetron
