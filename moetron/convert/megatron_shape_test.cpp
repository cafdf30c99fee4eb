#include "moetron/convert/megatron_shape.h"

#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/arch/config_reader.h"
#include "moetron/arch/config_writer.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/convert/megatron_args.h"
#include "moetron/convert/megatron_models_test.h"

namespace moetron {
namespace {

class MegatronShapeTest : public ::testing::Test {
 protected:
  TorchFile file(TorchValues args) const {
    TorchContents contents;
    contents.args = std::move(args);
    write_torch_file(path_, contents, {});
    return TorchFile(path_);
  }
  static TorchValues args_of(const ModelConfig& config) {
    return megatron_args(config, layout_of(config),
                         config.num_mtp_layers > 0 ? MtpTensors::kInclude : MtpTensors::kLeaveOut);
  }
  static void set(TorchValues& args, const std::string& name, TorchValue value) {
    std::erase_if(args, [&](const auto& entry) { return entry.first == name; });
    args.emplace_back(name, std::move(value));
  }
  // What a model becomes whose argument is another.
  std::string message(ModelConfig config, const std::string& name, TorchValue value) const {
    TorchValues args = args_of(config);
    set(args, name, std::move(value));
    const TorchFile changed = file(std::move(args));
    return message_of([&] { model_from_args(changed); });
  }

  TemporaryFolder folder_{"shape"};
  std::filesystem::path path_ = folder_.path() / "a.pt";
};

ModelConfig released_kind(ModelConfig config) {
  config.rope.dim = config.mla ? config.mla->qk_rope_head_dim : config.head_dim;
  config.rope.interleaved = config.mla.has_value();
  return config;
}

// The arguments of a model tell that model: its config.json is the same, key by key.
TEST_F(MegatronShapeTest, TellsTheModelOfItsArguments) {
  ModelConfig sigmoid = released_kind(deepseek_v3_mtp());
  sigmoid.moe->score_function = ScoreFunction::kSigmoid;
  sigmoid.moe->group_score = GroupScore::kTopTwoSum;
  sigmoid.moe->norm_topk_prob = sigmoid.moe->router_fp32 = true;
  sigmoid.moe->num_groups = sigmoid.moe->group_topk = 2;
  sigmoid.moe->routed_scaling_factor = 2.5;
  sigmoid.moe->bias_update_rate = 0.001;
  sigmoid.rope.type = RopeType::kYarn;
  sigmoid.rope.factor = 40;
  sigmoid.rope.original_max_position_embeddings = 4096;
  sigmoid.rope.mscale = sigmoid.rope.mscale_all_dim = 1.0;
  ModelConfig sparse = qwen3_moe();
  sparse.head_dim = 4;
  sparse = released_kind(sparse);
  sparse.moe->mlp_only_layers = {0, 2};
  sparse.moe->norm_topk_prob = true;
  const ModelConfig narrow = released_kind(narrow_heads());
  ModelConfig bias = released_kind(qwen2());
  bias.head_dim = bias.rope.dim = 2;
  for (const ModelConfig& config : {sigmoid, sparse, narrow, bias}) {
    const auto told = model_from_args(file(args_of(config)));
    ASSERT_TRUE(told);
    EXPECT_EQ(write_model_config(*told).dump(2), write_model_config(config).dump(2));
    EXPECT_EQ(told->family, config.family);
  }
}

TEST_F(MegatronShapeTest, TakesTheVocabularyThatIsGiven) {
  TorchValues args = args_of(narrow_heads());
  EXPECT_EQ(model_from_args(file(args))->vocab_size, 11);
  EXPECT_EQ(model_from_args(file(args), 10)->vocab_size, 10);
  set(args, "vocab_size", {nullptr});
  EXPECT_EQ(model_from_args(file(args))->vocab_size, 12);  // padded
}

TEST_F(MegatronShapeTest, TellsNothingWithoutTheShape) {
  EXPECT_EQ(model_from_args(file({{"tensor_model_parallel_size", {int64_t{1}}}})), std::nullopt);
  TorchValues args = args_of(narrow_heads());
  set(args, "hidden_size", {nullptr});
  EXPECT_EQ(model_from_args(file(args)), std::nullopt);
}

TEST_F(MegatronShapeTest, RefusesModelsOfNoFamily) {
  const std::string start = path_.string() + ": args.";
  const ModelConfig dense = narrow_heads();
  EXPECT_EQ(message(dense, "normalization", {std::string("LayerNorm")}),
            start + "normalization is not supported: it must be RMSNorm");
  EXPECT_EQ(message(dense, "swiglu", {false}), start + "swiglu is not supported: it must be True");
  EXPECT_EQ(message(dense, "add_bias_linear", {true}),
            start + "add_bias_linear is not supported: it must be False");
  EXPECT_EQ(message(dense, "position_embedding_type", {std::string("none")}),
            start + "position_embedding_type is not supported: it must be rope");
  EXPECT_EQ(message(dense, "num_layers", {int64_t{-1}}),
            start + "num_layers must be a whole number from 1 to 1024");
  EXPECT_EQ(message(dense, "num_layers", {2.5}),
            start + "num_layers must be a whole number from 1 to 1024");
  EXPECT_EQ(message(dense, "norm_epsilon", {std::string("x")}),
            start + "norm_epsilon must be a number");
  EXPECT_EQ(message(dense, "ffn_hidden_size", {nullptr}),
            start + "ffn_hidden_size is missing, which the model's shape needs");
  EXPECT_EQ(message(dense, "mtp_num_layers", {int64_t{1}}),
            start + "mtp_num_layers is not supported but in DeepSeek-V3");
  EXPECT_EQ(message(qwen3_moe(), "moe_layer_freq", {TorchValue::List{{int64_t{1}}}}),
            start + "moe_layer_freq must be a number, or one for each layer");
  EXPECT_NE(message(dense, "num_query_groups", {int64_t{3}}).find("contradict"), std::string::npos);
}

}  // namespace
}  // namespace moetron
