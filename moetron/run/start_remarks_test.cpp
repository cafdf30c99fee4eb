#include "moetron/run/start_remarks.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/config/options.h"

namespace moetron {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(StartRemarks, TellWhatNoOptionHasAskedFor) {
  Options options;
  RunSpec spec;
  spec.model.family = ModelConfig::Family::kQwen3Moe;
  EXPECT_THAT(start_remarks(options, spec), IsEmpty());
  spec.model.qk_norm = true;
  spec.model.num_layers = 1;
  spec.model.moe = MoeConfig{.num_experts = 8,
                             .top_k = 2,
                             .routed_scaling_factor = 2.5,
                             .aux_loss = AuxLossKind::kBatch,
                             .aux_loss_coeff = 0.001};
  EXPECT_THAT(start_remarks(options, spec),
              ElementsAre("qwen3_moe sets by itself: a norm of queries and keys, routed experts "
                          "scaled by 2.5, an aux loss of weight 0.001 for each micro-batch"));
  options.model.qk_layernorm = true;
  options.moe.moe_aux_loss_coeff = 0.001;
  options.moe.moe_router_topk_scaling_factor = 2.5;
  EXPECT_THAT(start_remarks(options, spec), IsEmpty());
}

TEST(StartRemarks, TellHowAShapeWithoutAClassIsSaved) {
  Options options;
  RunSpec spec;
  spec.model.family = ModelConfig::Family::kMoetron;
  spec.model.attention_bias = true;
  options.model.add_qkv_bias = true;
  EXPECT_THAT(start_remarks(options, spec),
              ElementsAre("transformers has no class for dense MLPs behind attention without "
                          "qk-layernorm and with add-qkv-bias: config.json says model_type "
                          "moetron, which only moetron loads"));
}

TEST(StartRemarks, TellThatLatentsAreNormedInAnyCase) {
  Options options;
  RunSpec spec;
  spec.model.family = ModelConfig::Family::kDeepseekV3;
  spec.model.mla = MlaConfig();
  EXPECT_THAT(start_remarks(options, spec), IsEmpty());
  options.model.qk_layernorm = true;
  EXPECT_THAT(start_remarks(options, spec), ElementsAre(HasSubstr("no effect here: qk-layernorm")));
}

TEST(StartRemarks, TellWhatAModelWithoutExpertsHasNoUseFor) {
  Options options;
  RunSpec spec;
  spec.model.num_layers = 2;
  options.model.ffn_hidden_size = 64;
  options.memory.moe_layer_recompute = true;
  options.moe.moe_aux_loss_coeff = 0.01;
  EXPECT_THAT(start_remarks(options, spec),
              ElementsAre("no effect here: moe-layer-recompute, moe-aux-loss-coeff (the model has "
                          "no experts)"));
  spec.model.moe = MoeConfig{.num_experts = 8, .top_k = 2, .first_k_dense_replace = 2};
  EXPECT_EQ(start_remarks(options, spec).size(), 1u) << "experts that no layer has";
}

TEST(StartRemarks, TellWhatTrainsLessAndWhatMegatronDoesOtherwise) {
  Options options;
  options.moe.moe_router_pre_softmax = false;
  RunSpec spec;
  spec.model.num_layers = 1;
  spec.model.moe = MoeConfig{.num_experts = 8, .top_k = 1, .norm_topk_prob = true};
  EXPECT_THAT(start_remarks(options, spec),
              ElementsAre(HasSubstr("moe-router-topk (1): the weight of a token's one expert is "
                                    "normalised to 1")));
  spec.model.moe->top_k = 2;
  spec.sizes.tp = 4;
  EXPECT_THAT(start_remarks(options, spec),
              ElementsAre(HasSubstr("would be that of tensor-model-parallel-size (4)")));
  spec.sizes.tpe = 4;
  EXPECT_THAT(start_remarks(options, spec), IsEmpty());
}

}  // namespace
}  // namespace moetron
