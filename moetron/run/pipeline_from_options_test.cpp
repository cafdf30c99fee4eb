#include "moetron/run/pipeline_from_options.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error_test_support.h"

namespace moetron {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kLayers = 24;

ParallelOptions options_of(ScheduleKind scheduler, int64_t num_ranks) {
  ParallelOptions options;
  options.scheduler = scheduler;
  options.pipeline_model_parallel_size = num_ranks;
  return options;
}

std::vector<int64_t> counts_of(const PipelineSettings& settings) {
  std::vector<int64_t> counts;
  for (const StageLayers& stage : settings.stages) counts.push_back(stage.count);
  return counts;
}

std::string refusal(const ParallelOptions& options, int64_t num_layers = kLayers) {
  return config_error([&] { pipeline_settings(options, num_layers, 16); });
}

TEST(PipelineSettings, TwoVirtualStagesMeanInterleaved) {
  const ParallelOptions plain = options_of(ScheduleKind::k1F1B, 2);
  EXPECT_EQ(pipeline_settings(plain, kLayers, 16).request.kind, ScheduleKind::k1F1B);
  ParallelOptions by_rank = plain;
  by_rank.hetero_pipeline_stages = {13, 11};
  EXPECT_EQ(pipeline_settings(by_rank, kLayers, 16).request.kind, ScheduleKind::k1F1B);
  EXPECT_THAT(counts_of(pipeline_settings(by_rank, kLayers, 16)), ElementsAre(13, 11));

  ParallelOptions by_chunk = plain;
  by_chunk.hetero_pipeline_stages = {7, 6, 6, 5};
  ParallelOptions by_virtual_layers = plain;
  by_virtual_layers.virtual_hetero_pipeline_stages = {7, 6, 6, 5};
  for (const ParallelOptions& options : {by_chunk, by_virtual_layers}) {
    const PipelineSettings settings = pipeline_settings(options, kLayers, 16);
    EXPECT_EQ(settings.request.kind, ScheduleKind::kInterleaved);
    EXPECT_THAT(counts_of(settings), ElementsAre(7, 6, 6, 5));
  }
  ParallelOptions by_stages = plain;
  by_stages.num_virtual_stages_per_pipeline_rank = 2;
  ParallelOptions by_layers = plain;
  by_layers.num_layers_per_virtual_pipeline_stage = 6;
  for (const ParallelOptions& options : {by_stages, by_layers}) {
    const PipelineSettings settings = pipeline_settings(options, kLayers, 16);
    EXPECT_EQ(settings.request.kind, ScheduleKind::kInterleaved);
    EXPECT_THAT(counts_of(settings), ElementsAre(6, 6, 6, 6));
  }
  by_stages.num_virtual_stages_per_pipeline_rank = 1;
  EXPECT_EQ(pipeline_settings(by_stages, kLayers, 16).request.kind, ScheduleKind::k1F1B);
}

// As the guide's scripts pass them: HPP beside VPP holds a number for each virtual stage.
TEST(PipelineSettings, ManyVirtualStagesMayBeUneven) {
  ParallelOptions options = options_of(ScheduleKind::k1F1B, 2);
  options.num_layers_per_virtual_pipeline_stage = 3;
  PipelineSettings settings = pipeline_settings(options, kLayers, 16);
  EXPECT_EQ(settings.request.kind, ScheduleKind::kInterleaved);
  EXPECT_EQ(settings.request.loop_chunks, 4);
  EXPECT_THAT(counts_of(settings), ElementsAre(3, 3, 3, 3, 3, 3, 3, 3));
  options.hetero_pipeline_stages = {2, 3, 3, 4, 3, 3, 3, 3};
  settings = pipeline_settings(options, kLayers, 16);
  EXPECT_EQ(settings.request.loop_chunks, 4);
  EXPECT_THAT(counts_of(settings), ElementsAre(2, 3, 3, 4, 3, 3, 3, 3));
  options.hetero_pipeline_stages = {12, 12};
  EXPECT_EQ(refusal(options),
            "hetero-pipeline-stages (12 12) means 1 stage a rank, but "
            "num-layers-per-virtual-pipeline-stage (3) means 4");
  // 22 layers in 8 stages: no even division has 3 or 2 in each.
  ParallelOptions guide = options_of(ScheduleKind::k1F1B, 4);
  guide.hetero_pipeline_stages = {2, 3, 3, 3, 2, 3, 3, 3};
  for (const int64_t layers : {2, 3}) {
    guide.num_layers_per_virtual_pipeline_stage = layers;
    EXPECT_EQ(refusal(guide, 22), "") << layers;
    EXPECT_EQ(pipeline_settings(guide, 22, 16).request.loop_chunks, 2);
  }
}

TEST(PipelineSettings, AVTakesAChunkOfEachRankThenTheOther) {
  ParallelOptions options = options_of(ScheduleKind::kDualPipeV, 2);
  options.virtual_hetero_pipeline_stages = {2, 2, 1, 2};
  const PipelineSettings settings = pipeline_settings(options, 7, 16);
  EXPECT_EQ(settings.request.kind, ScheduleKind::kDualPipeV);
  EXPECT_EQ(settings.request.num_micro_batches, 16);
  // Stage 2 is chunk 1 of rank 1, stage 3 chunk 1 of rank 0.
  EXPECT_THAT(counts_of(settings), ElementsAre(2, 2, 2, 1));
  EXPECT_EQ(settings.stages[3], (StageLayers{6, 1, false, true}));
}

TEST(PipelineSettings, PassesOnWhatActsOnTheGenerator) {
  ParallelOptions options = options_of(ScheduleKind::kDualPipeVPlus, 4);
  options.pipeline_activation_cap = 7;
  options.pipeline_communication = 0.25;
  const ScheduleRequest request = pipeline_settings(options, kLayers, 64).request;
  EXPECT_EQ(request.kind, ScheduleKind::kDualPipeVPlus);
  EXPECT_EQ(request.num_ranks, 4);
  EXPECT_EQ(request.activation_cap, 7);
  EXPECT_EQ(request.communication, 0.25);
}

TEST(PipelineSettings, RefusesWhatDoesNotFit) {
  ParallelOptions v = options_of(ScheduleKind::kZbV, 2);
  v.hetero_pipeline_stages = {13, 11};
  EXPECT_EQ(refusal(v),
            "hetero-pipeline-stages (13 11) does not go with scheduler zb-v, where a rank has two "
            "chunks: give virtual-hetero-pipeline-stages 4 numbers, first chunk 0 of every rank, "
            "then chunk 1");
  ParallelOptions straight = options_of(ScheduleKind::kZbH1, 2);
  straight.virtual_hetero_pipeline_stages = {6, 6, 6, 6};
  EXPECT_EQ(refusal(straight),
            "virtual-hetero-pipeline-stages (6 6 6 6) means 2 stages a rank, but scheduler zb-h1 "
            "has 1");
  ParallelOptions plain = options_of(ScheduleKind::k1F1B, 2);
  plain.hetero_pipeline_stages = {8, 8, 8};
  EXPECT_EQ(refusal(plain),
            "hetero-pipeline-stages (8 8 8) has 3 numbers, no multiple of "
            "pipeline-model-parallel-size (2)");
  plain.hetero_pipeline_stages = {12, 12};
  plain.num_virtual_stages_per_pipeline_rank = 2;
  EXPECT_EQ(refusal(plain),
            "hetero-pipeline-stages (12 12) means 1 stage a rank, but "
            "num-virtual-stages-per-pipeline-rank (2) means 2");
  plain.virtual_hetero_pipeline_stages = {6, 6, 6, 6};
  EXPECT_EQ(refusal(plain),
            "hetero-pipeline-stages (12 12) and virtual-hetero-pipeline-stages (6 6 6 6) both say "
            "which layers a stage has: give one of them");
  plain.virtual_hetero_pipeline_stages.clear();
  plain.hetero_pipeline_stages.clear();
  plain.num_layers_per_virtual_pipeline_stage = 6;
  EXPECT_EQ(refusal(plain), "");
  plain.num_layers_per_virtual_pipeline_stage = 4;
  EXPECT_EQ(refusal(plain),
            "num-layers-per-virtual-pipeline-stage (4) means 3 stages a rank, but "
            "num-virtual-stages-per-pipeline-rank (2) means 2");
  plain.scheduler = ScheduleKind::kDualPipeV;
  EXPECT_EQ(refusal(plain),
            "num-layers-per-virtual-pipeline-stage (4) means 3 stages a rank, but scheduler "
            "dualpipev has 2");
  plain.scheduler = ScheduleKind::k1F1B;
  plain.num_layers_per_virtual_pipeline_stage = 5;
  EXPECT_EQ(refusal(plain),
            "num-layers-per-virtual-pipeline-stage (5) times pipeline-model-parallel-size (2) must "
            "divide num-layers (24)");
}

TEST(PipelineSettings, OnlyAnExplicitStageIsEmpty) {
  ParallelOptions options = options_of(ScheduleKind::kDualPipeV, 2);
  EXPECT_EQ(refusal(options, 3),
            "pipeline-model-parallel-size (2) under scheduler dualpipev makes 4 stages, more than "
            "num-layers (3): say with virtual-hetero-pipeline-stages which of them have none");
  options.virtual_hetero_pipeline_stages = {1, 1, 0, 1};
  EXPECT_THAT(counts_of(pipeline_settings(options, 3, 16)), ElementsAre(1, 1, 1, 0));
}

}  // namespace
}  // namespace moetron
