// What the planner says that a rank holds, against the parameters of the models that ranks build:
// one set of rules (arch/tensors.h) makes both, and must give the same count to the element.
#include <gtest/gtest.h>

#include "layout_harness.h"
#include "moetron/arch/lora.h"
#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/comm/fake_communicator.h"
#include "moetron/models/model.h"
#include "moetron/plan/memory.h"
#include "moetron/plan/step_program.h"
#include "moetron/run/division.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

struct Layout {
  int64_t tp = 1, pp = 1, ep = 1, tpe = 1;
  int64_t world = 8;
  ScheduleKind kind = ScheduleKind::k1F1B;
  bool mla_replicate_l1 = false;
  bool mla_fuse_qkv = false;
  bool has_lora = false;
  std::vector<std::string> frozen = {};
};

std::string describe(const ModelConfig& config, const Layout& l) {
  return concat(family_name(config.family), " tp ", l.tp, " pp ", l.pp, " ", name_of(l.kind),
                " ep ", l.ep, " tpe ", l.tpe, l.mla_replicate_l1 ? " replicated" : "",
                l.mla_fuse_qkv ? " fused" : "", l.has_lora ? " low-rank" : "",
                l.frozen.empty() ? "" : " frozen");
}

// Of what a rank builds of its stages. A tied use on the owner's rank shares the value, and counts.
StageParameters built(const ModelConfig& config, const ModelSettings& settings) {
  StageParameters sum;
  Model model(config, settings);
  for (const Parameter* parameter : model.parameters()) {
    const auto elements = static_cast<double>(parameter->value().numel());
    const double with_grad = parameter->needs_grad() ? elements : 0;
    const bool is_bias = parameter->label().ends_with(tensors::kRouterBias.name);
    if (parameter->is_tied() || parameter->pieces().empty()) {
      sum.tied += elements;
      sum.tied_grads += with_grad;
    } else if (is_bias) {
      sum.buffers += elements;
    } else {
      const ReplicaRule& replicas = parameter->settings().replicas;
      const bool is_expert = replicas.data == ReplicaRule::Data::kEdp;
      (is_expert ? sum.experts : sum.dense) += elements;
      (is_expert ? sum.expert_grads : sum.dense_grads) += with_grad;
      sum.updated += with_grad / settings.mesh->replicas(replicas).size();
    }
  }
  return sum;
}

void expect_same(const ModelConfig& config, const Layout& layout) {
  const std::string label = describe(config, layout);
  const ParallelSizes sizes =
      parallel_sizes(layout.world, layout.tp, layout.pp, layout.ep, layout.tpe);
  check_division(config, sizes, layout.mla_replicate_l1);
  const Placement placement = placement_of(layout.kind, static_cast<int>(layout.pp));
  const auto stages = stage_layout(placement, config.num_layers, {}, "hetero-pipeline-stages");
  RunSpec spec{.model = config,
               .sizes = sizes,
               .latent_attention = {.replicate_down = layout.mla_replicate_l1},
               .optimizer = {.distributed = true}};
  if (layout.has_lora)
    spec.lora = LoraConfig{.rank = 4, .alpha = 8, .targets = find_lora_targets(config, {})};
  spec.frozen = find_frozen_parts(config, layout.frozen, layout.mla_fuse_qkv);
  const auto planned = stage_parameters(spec, stages);
  for (int rank = 0; rank < static_cast<int>(layout.world); ++rank) {
    const auto log = std::make_shared<CommLog>();
    const auto world = make_fake_world(rank, static_cast<int>(layout.world), log);
    Mesh mesh(*world, sizes, head_copies(sizes, config), layout.has_lora);
    const int place = mesh.pipeline().rank();
    ModelSettings settings;
    settings.mesh = &mesh;
    settings.latent_attention.replicate_down = layout.mla_replicate_l1;
    settings.latent_attention.fuse_down = layout.mla_fuse_qkv;
    settings.lora = spec.lora;
    settings.frozen = spec.frozen;
    settings.stages = stages_of_rank(stages, placement, place);
    const StageParameters found = built(config, settings);
    StageParameters wanted;
    for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
      wanted.add(planned[size_t(placement.stage(place, chunk))], 1);
    }
    EXPECT_EQ(found.dense, wanted.dense) << label << ", rank " << rank;
    EXPECT_EQ(found.experts, wanted.experts) << label << ", rank " << rank;
    EXPECT_EQ(found.buffers, wanted.buffers) << label << ", rank " << rank;
    EXPECT_EQ(found.tied, wanted.tied) << label << ", rank " << rank;
    EXPECT_EQ(found.dense_grads, wanted.dense_grads) << label << ", rank " << rank;
    EXPECT_EQ(found.expert_grads, wanted.expert_grads) << label << ", rank " << rank;
    EXPECT_EQ(found.tied_grads, wanted.tied_grads) << label << ", rank " << rank;
    EXPECT_NEAR(found.updated, wanted.updated, 1e-6) << label << ", rank " << rank;
  }
}

// What the planner times is what the layers of the model run.
TEST(Parameters, ThePlannerTimesTheProgramsOfTheModelsLayers) {
  ModelConfig dense = tiny_qwen_moe();
  dense.family = ModelConfig::Family::kQwen3;
  dense.moe.reset();
  const Hardware hardware = read_hardware("configs/hardware/h100-ib400.toml");
  for (const ModelConfig& config : {tiny_deepseek(), tiny_qwen_moe(), dense}) {
    const RunSpec spec{.model = config, .batch = {.seq_length = 32, .micro_batch_size = 1}};
    Model model(config);
    const auto& layers = model.chunks()[0].layers;  // between the ends
    ASSERT_EQ(static_cast<int64_t>(layers.size()), config.num_layers + 2);
    for (int64_t i = 0; i < config.num_layers; ++i) {
      const LayerTimes times = layer_times(spec, hardware, config.is_moe_layer(i));
      EXPECT_EQ(&program_of(times), &layers[static_cast<size_t>(i + 1)]->program())
          << family_name(config.family) << ", layer " << i;
    }
  }
}

// Two key-value heads: at TP 4 and 8 each is held by several ranks. The vocabulary of 61 is padded.
TEST(Parameters, SharedHeadsAndPaddingAreCountedAsTheyAreHeld) {
  const ModelConfig tied = tiny_qwen_moe();
  ASSERT_TRUE(tied.tie_word_embeddings && tied.num_key_value_heads == 2 &&
              tied.vocab_size % 2 == 1);
  ModelConfig untied = tied;
  untied.tie_word_embeddings = false;
  ModelConfig biased = tied;  // dense layers, with a bias on queries, keys and values
  biased.family = ModelConfig::Family::kQwen2;
  biased.qk_norm = false;
  biased.attention_bias = true;
  biased.moe.reset();
  for (const ModelConfig& config : {tied, untied, biased}) {
    for (const int64_t tp : {1, 2, 4, 8}) expect_same(config, {.tp = tp});
  }
}

TEST(Parameters, ExpertsAreDividedAmongTheirOwnRanks) {
  for (const ModelConfig& config : {tiny_deepseek(), tiny_qwen_moe(), tiny_gated_qwen()}) {
    for (const int64_t ep : {1, 2, 4}) {
      for (const int64_t tpe : {1, 2}) expect_same(config, {.tp = 2, .ep = ep, .tpe = tpe});
    }
  }
}

TEST(Parameters, LatentProjectionsAreDividedUnlessReplicated) {
  ModelConfig plain = tiny_deepseek();
  plain.mla->q_lora_rank = 0;
  for (const int64_t tp : {1, 2, 4}) {
    for (const bool replicates : {false, true}) {
      expect_same(tiny_deepseek(), {.tp = tp, .mla_replicate_l1 = replicates});
      expect_same(tiny_deepseek(),
                  {.tp = tp, .mla_replicate_l1 = replicates, .mla_fuse_qkv = true});
      expect_same(plain, {.tp = tp, .mla_replicate_l1 = replicates});
    }
  }
}

// Low-rank updates are held as the weights that they are for are divided, and nothing else has
// gradients then; frozen parts have none.
TEST(Parameters, UpdatesAndFrozenPartsAreCountedAsTheyAreHeld) {
  for (const ModelConfig& config : {tiny_deepseek(), tiny_qwen_moe()}) {
    for (const bool has_lora : {true, false}) {
      const std::vector<std::string> frozen =
          has_lora ? std::vector<std::string>{}
                   : std::vector<std::string>{"embedding", "router", "model.layers.1.self_attn.*"};
      for (const bool replicates : {true, false}) {
        Layout layout{.mla_replicate_l1 = replicates, .has_lora = has_lora, .frozen = frozen};
        expect_same(config, layout);
        for (const int64_t tp : {2, 4, 8}) {
          layout.tp = tp;
          expect_same(config, layout);
        }
        layout.tp = layout.pp = layout.ep = layout.tpe = 2;
        layout.kind = ScheduleKind::kDualPipeV;
        layout.world = 8;
        ModelConfig deeper = config;
        deeper.num_layers = 4;
        expect_same(deeper, layout);
      }
    }
  }
}

// The copy of a tied table is where the head is: on another rank, or in a V on the same one.
TEST(Parameters, EveryStageHoldsItsPart) {
  for (const ScheduleKind kind :
       {ScheduleKind::k1F1B, ScheduleKind::kInterleaved, ScheduleKind::kDualPipeV}) {
    ModelConfig config = tiny_qwen_moe();
    config.num_layers = 6;
    expect_same(config, {.tp = 2, .pp = 2, .ep = 2, .kind = kind});
    ModelConfig deepseek = tiny_deepseek();
    deepseek.num_layers = 5;
    expect_same(deepseek, {.tp = 2, .pp = 2, .ep = 2, .kind = kind, .mla_replicate_l1 = true});
  }
}

}  // namespace
}  // namespace moetron
