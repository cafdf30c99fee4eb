// What the benchmarks of kernels and of overlap compute, and the link that stands for a network.
#include "moetron/bench/bench_overlap.h"

#include <gmock/gmock.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/bench/bench_ops.h"
#include "moetron/bench/bench_slice.h"
#include "moetron/bench/benchmark.h"
#include "moetron/bench/host_link.h"
#include "moetron/bench/layer_parts.h"
#include "moetron/config/command_line.h"
#include "moetron/models/model.h"
#include "moetron/pipeline/block.h"

namespace moetron {
namespace {

constexpr int64_t kTokens = 4096;

double copies_of_token(BenchSlice slice, int64_t ep, DispatchScheme scheme) {
  const ModelConfig config = slice_config(slice, 4, kTokens);
  return static_cast<double>(exchange_bytes(config, kTokens, ep, scheme)) /
         static_cast<double>(2 * kTokens * config.hidden_size);
}

TEST(ExchangeBytes, AreThoseOfEvenlyUsedExperts) {
  for (const BenchSlice slice : {BenchSlice::kQwen3235b, BenchSlice::kDeepseekV3}) {
    // Of 16 ranks with 16 experts each, the 8 experts of a token are on 6.53; 15 of 16 are others.
    EXPECT_NEAR(copies_of_token(slice, 16, DispatchScheme::kPerRank), 6.12, 0.01);
    // Both nodes have some of them: 1 - C(128, 8) / C(256, 8) = 0.9965.
    EXPECT_NEAR(copies_of_token(slice, 16, DispatchScheme::kPerNode), 0.9965, 1e-4);
    EXPECT_EQ(copies_of_token(slice, 8, DispatchScheme::kPerNode), 0);
  }
}

ModelConfig tiny_model() {
  ModelConfig config = slice_config(BenchSlice::kDeepseekV3, 2, 8);
  config.hidden_size = 16;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.mla = MlaConfig{.q_lora_rank = 8,
                         .kv_lora_rank = 8,
                         .qk_nope_head_dim = 8,
                         .qk_rope_head_dim = 4,
                         .v_head_dim = 8};
  config.head_dim = config.mla->qk_head_dim();
  config.rope.dim = config.mla->qk_rope_head_dim;
  config.moe->expert_intermediate_size = config.moe->shared_intermediate_size = 8;
  return config;
}

// Two layers of random weights without embedding and head, and what two micro-batches bring.
struct Stage {
  Model model;
  MicroBatch micro_batch;
  at::Tensor hidden, d_output;

  Stage() : model(tiny_model(), {.stages = {{0, 2, /*has_embedding=*/false, /*has_head=*/false}}}) {
    at::manual_seed(1);
    fill_at_random(model, 0.2);
    micro_batch = make_micro_batch(at::zeros({1, 8}, at::kLong));
    hidden = at::randn({8, 16});
    d_output = at::randn({8, 16});
  }

  Chunk& chunk() { return model.chunks().front(); }
};

// Output of F, input gradient of B, and the weights' gradients.
struct Results {
  at::Tensor output, d_input;
  std::vector<at::Tensor> weight_grads;
};

Results results_of(Stage& stage, bool in_block) {
  Results results;
  ChunkRun before(stage.chunk(), stage.micro_batch), run(stage.chunk(), stage.micro_batch);
  forward_chunk(before, {{.data = stage.hidden}});
  if (in_block) {
    run.begin_forward({{.data = stage.hidden}}, {});
    before.begin_backward({stage.d_output}, {});
    run_instructions(
        block_instructions(run.program(), before.program(), /*with_weights=*/true),
        {.forward = &run,
         .backward = &before,
         .on_outputs = [&](const std::vector<Value>& made) { results.output = made.at(0).data; },
         .on_d_inputs = [&](const std::vector<at::Tensor>& d) { results.d_input = d.at(0); }});
  } else {
    results.output = forward_chunk(run, {{.data = stage.hidden}}).at(0).data;
    results.d_input = backward_chunk(before, {stage.d_output}).at(0);
  }
  for (Parameter* parameter : stage.model.parameters()) {
    if (parameter->has_grad()) results.weight_grads.push_back(parameter->grad());
  }
  return results;
}

TEST(HostLink, LeavesTheResultsAsTheyAreAndCarriesFourTransfersALayer) {
  Stage local, linked;
  HostLink link(at::kCPU);
  for (auto& layer : linked.chunk().layers) layer = put_on_link(std::move(layer), link);
  link.set_bytes(1000);
  const Results expected = results_of(local, /*in_block=*/false);
  const Results found = results_of(linked, /*in_block=*/true);
  EXPECT_TRUE(at::equal(found.output, expected.output));
  EXPECT_TRUE(at::equal(found.d_input, expected.d_input));
  ASSERT_EQ(found.weight_grads.size(), expected.weight_grads.size());
  EXPECT_GT(expected.weight_grads.size(), 10u);
  for (size_t i = 0; i < found.weight_grads.size(); ++i) {
    EXPECT_TRUE(at::equal(found.weight_grads[i], expected.weight_grads[i])) << i;
  }
  // Two forwards and one backward of two layers.
  EXPECT_EQ(link.bytes_carried(), 3 * 2 * 2 * 1000);
  link.set_bytes(0);
  results_of(linked, /*in_block=*/false);
  EXPECT_EQ(link.bytes_carried(), 3 * 2 * 2 * 1000);
}

TEST(LayerParts, EveryPartIsThere) {
  Stage stage;
  const LayerTimes times = measure_layers(stage.chunk(), stage.micro_batch, stage.hidden,
                                          stage.d_output, /*iterations=*/2);
  for (const PartTimes& part : {times.attention, times.experts, times.shared}) {
    EXPECT_GT(part.forward, 0);
    EXPECT_GT(part.backward_input, 0);
    EXPECT_GT(part.backward_weight, 0);
  }
  EXPECT_EQ(times.dispatch, 0);
}

TEST(OverlapTimes, SharesAreOfTheCommunication) {
  OverlapTimes times{.compute = 20, .communication = 8, .plain = 28, .block = 22};
  EXPECT_EQ(times.hidden(times.plain), 0);
  EXPECT_EQ(times.hidden(times.block), 0.75);
  EXPECT_EQ(times.hidden(20), 1);
  EXPECT_EQ(times.most_hidden(), 1);
  times.compute = 2;
  EXPECT_EQ(times.most_hidden(), 0.25);
}

TEST(OverlapTimes, PlansWithTheMeasuredParts) {
  LayerTimes layer{.attention = {1, 1, 1}, .experts = {1, 1, 1}, .dispatch = 0.5};
  const OverlapTimes times = planned_times(layer, 4);
  EXPECT_DOUBLE_EQ(times.compute, 4 * 6);
  EXPECT_DOUBLE_EQ(times.communication, 4 * 4 * 0.5);
  // Dispatch's backward runs beside the experts' weight gradients.
  EXPECT_DOUBLE_EQ(times.plain, 4 * (6 + 3 * 0.5));
  // All but what no other layer's compute is beside: at the beginning and at the end.
  EXPECT_GE(times.block, 4 * 6);
  EXPECT_LE(times.block, 4 * 6 + 2 * 0.5);
  layer.dispatch = 0;
  EXPECT_DOUBLE_EQ(planned_times(layer, 4).speed_up(), 1);
}

TEST(KernelCase, TheHigherFloorCounts) {
  const Ceilings ceilings{.copied_bytes = 4e12, .product_flops = 800e12};
  const KernelCase copy{.name = "copy", .shape = "[1]", .bytes = 4e9};
  EXPECT_TRUE(copy.is_memory_bound(ceilings));
  EXPECT_DOUBLE_EQ(copy.floor(ceilings), 1e-3);
  EXPECT_THAT(kernel_row(copy, 2e-3, ceilings),
              testing::ContainsRegex("copy +\\[1\\] +2.0000 +2000 GB/s +1.0000 +50.0 %$"));
  const KernelCase product{.name = "product", .shape = "[2]", .bytes = 4e9, .flops = 1.6e12};
  EXPECT_FALSE(product.is_memory_bound(ceilings));
  EXPECT_DOUBLE_EQ(product.floor(ceilings), 2e-3);
  EXPECT_THAT(kernel_row(product, 2.5e-3, ceilings),
              testing::ContainsRegex("2.5000 +640 TFLOP/s +2.0000 +80.0 %$"));
}

TEST(BenchCommand, KernelsAndOverlapNeedAGpu) {
  const auto error_of = [](std::vector<const char*> words) -> std::string {
    words.insert(words.begin(), {"moetron", "bench"});
    try {
      const auto parsed = parse_command_line(static_cast<int>(words.size()), words.data());
      run_benchmark(parsed.options, c10::kCPU, std::cout);
      return "";
    } catch (const ConfigError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(error_of({"ops", "--device", "cpu"}),
            "bench ops measures GPU kernels: device (cpu) must be cuda");
  EXPECT_THAT(error_of({"overlap", "--device", "cpu"}),
              testing::HasSubstr("device (cpu) must be cuda"));
  EXPECT_THAT(error_of({"overlap", "--mlp-recompute"}), testing::HasSubstr("recomputes nothing"));
  EXPECT_THAT(error_of({"ops", "--dtype", "fp32"}), testing::HasSubstr("measures bf16"));
}

}  // namespace
}  // namespace moetron
