// The benchmark of steps: its FLOPs and kinds of kernels, and tiny slices run on the CPU.
#include <cmath>
#include <filesystem>
#include <gmock/gmock.h>
#include <iostream>
#include <unistd.h>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error_test_support.h"
#include "moetron/base/json.h"
#include "moetron/bench/bench_slice.h"
#include "moetron/bench/bench_step.h"
#include "moetron/bench/bench_timer.h"
#include "moetron/bench/benchmark.h"
#include "moetron/config/command_line.h"

namespace moetron {
namespace {

using testing::HasSubstr;

TEST(BenchSlice, CountsTheFlopsOfTorchSlice) {
  // What model_flops() of torch_slice.py returns, for its own sizes and for one layer of 1024
  // tokens.
  const ModelConfig qwen = slice_config(BenchSlice::kQwen3235b, 4, 4096);
  const ModelConfig deepseek = slice_config(BenchSlice::kDeepseekV3, 4, 4096);
  EXPECT_EQ(slice_flops(qwen, 4096, 4096), 28378996408320.0);
  EXPECT_EQ(slice_flops(deepseek, 4096, 4096), 71251896827904.0);
  EXPECT_EQ(slice_flops(qwen, 2 * 4096, 4096), 2 * 28378996408320.0);
  const auto one_layer = [](BenchSlice slice) {
    return slice_flops(slice_config(slice, 1, 1024), 1024, 1024);
  };
  EXPECT_EQ(one_layer(BenchSlice::kQwen3235b), 2223048228864.0);
  EXPECT_EQ(one_layer(BenchSlice::kDeepseekV3), 5123661103104.0);
}

TEST(KernelTimes, KernelsAreSortedByTheirNames) {
  const std::vector<std::pair<const char*, KernelKind>> kernels{
      {"cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_7_64x128x128",
       KernelKind::kAttention},
      {"void cudnn::fusion::compute_dot_do_o_specialized<true>", KernelKind::kAttention},
      {"nvjet_tst_256x128_64x4_2x1_v_bz_coopB_NNT", KernelKind::kDenseGemm},
      {"void cublasLt::splitKreduce_kernel<32, 16, int, float>", KernelKind::kDenseGemm},
      {"sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", KernelKind::kDenseGemm},
      {"void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::"
       "GroupProblemShape<cute::tuple<int, int, int>>>>",
       KernelKind::kGroupedGemm},
      {"at::cuda::detail::prepare_grouped_gemm_data", KernelKind::kGroupedGemm},
      {"moetron::gather_rows_kernel", KernelKind::kPermute},
      {"moetron::sum_rows_kernel", KernelKind::kPermute},
      {"moetron::build_row_map_kernel", KernelKind::kPermute},
      {"void at::native::index_elementwise_kernel<128, 4>", KernelKind::kPermute},
      {"moetron::rms_norm_forward_kernel", KernelKind::kNorm},
      {"at::native::(anonymous namespace)::cuComputeGradInput", KernelKind::kNorm},
      {"moetron::qk_norm_rope_kernel", KernelKind::kRope},
      {"moetron::latent_keys_forward_kernel", KernelKind::kRope},
      {"moetron::weight_grad_groups_kernel", KernelKind::kGroupedGemm},
      {"void moetron::fp8_gemm_kernel<moetron::(anonymous namespace)::ProductKernel>(...)",
       KernelKind::kGroupedGemm},
      {"moetron::swiglu_backward_kernel", KernelKind::kActivation},
      {"moetron::router_forward_kernel", KernelKind::kRouter},
      {"softmax_warp_forward", KernelKind::kRouter},
      {"moetron::cross_entropy_kernel", KernelKind::kLoss},
      {"at::native::cunn_SoftMaxForward", KernelKind::kLoss},
      {"moetron::adamw_kernel", KernelKind::kOptimizer},
      {"Memcpy DtoD (Device -> Device)", KernelKind::kOther},
      {"void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add>", KernelKind::kOther}};
  for (const auto& [name, kind] : kernels) EXPECT_EQ(kind_of_kernel(name), kind) << name;
}

TEST(KernelTimes, IdleIsWhereNoKernelRuns) {
  // 10 to 12 ms a product, 11 to 14 a copy beside it, nothing to 20, then a product to 21.
  const int64_t ms = 1'000'000;
  const KernelTimes times = sum_kernels({{"gemm_b", 20 * ms, 1 * ms},
                                         {"gemm_a", 10 * ms, 2 * ms},
                                         {"Memcpy HtoD", 11 * ms, 3 * ms},
                                         {"gemm_b", 12 * ms, 1 * ms}});
  EXPECT_DOUBLE_EQ(times.span_ms, 11);
  EXPECT_DOUBLE_EQ(times.idle_ms, 6);
  EXPECT_DOUBLE_EQ(times.ms[static_cast<size_t>(KernelKind::kDenseGemm)], 4);
  EXPECT_DOUBLE_EQ(times.ms[static_cast<size_t>(KernelKind::kOther)], 3);
  EXPECT_EQ(times.num_runs, 4);
  ASSERT_EQ(times.kernels.size(), 3u);
  EXPECT_EQ(times.kernels[0].name, "Memcpy HtoD");
  for (const NamedKernel& kernel : times.kernels)
    EXPECT_EQ(kernel.num_runs, kernel.name == "gemm_b" ? 2 : 1);
  EXPECT_EQ(sum_kernels({}).span_ms, 0);
}

TEST(BenchTimer, MedianIsTheUpperMiddle) {
  EXPECT_EQ(median({5, 1, 3}), 3);
  EXPECT_EQ(median({4, 1, 3, 2}), 3);
  EXPECT_EQ(median({7}), 7);
}

// The slice with everything but the number of experts made small.
ModelConfig tiny(BenchSlice slice) {
  ModelConfig config = slice_config(slice, /*num_layers=*/1, /*seq_length=*/32);
  config.vocab_size = 512;
  config.hidden_size = 64;
  config.num_attention_heads = 4;
  config.num_key_value_heads = config.mla ? 4 : 2;
  config.moe->expert_intermediate_size = 32;
  if (config.mla) {
    config.mla->q_lora_rank = 48;
    config.mla->kv_lora_rank = 32;
    config.moe->shared_intermediate_size = 32;
  }
  return config;
}

Options tiny_options() {
  Options options;
  options.training.seq_length = 32;
  options.training.micro_batch_size = 2;
  options.bench.warmup = 1;
  options.bench.iterations = 2;
  return options;
}

void expect_sane(const StepReport& report, const ModelConfig& config) {
  EXPECT_NEAR(report.micro_batch.loss, std::log(512), 0.1);  // of random tokens, hardly trained
  EXPECT_GT(report.micro_batch.first_ms, 0);
  EXPECT_GT(report.micro_batch.next_ms, 0);
  EXPECT_GT(report.micro_batch.peak_bytes, 4 * report.num_parameters);
  EXPECT_EQ(report.flops, slice_flops(config, 64, 32));
  EXPECT_EQ(report.dtype, "fp32");
}

class BenchStep : public testing::Test {
 protected:
  // Threads only wait for each other on such small matrices.
  void SetUp() override { at::set_num_threads(1); }
  void TearDown() override { at::set_num_threads(num_threads_); }

 private:
  const int num_threads_ = at::get_num_threads();
};

TEST_F(BenchStep, BothSlicesRunOnTheCpu) {
  for (const BenchSlice slice : {BenchSlice::kQwen3235b, BenchSlice::kDeepseekV3}) {
    const ModelConfig config = tiny(slice);
    const StepReport report = measure_step(config, tiny_options(), at::kCPU);
    expect_sane(report, config);
    EXPECT_FALSE(report.optimizer);
    EXPECT_FALSE(report.kernels);
    // Embedding and head, the experts' three matrices, the router, and the norms and attention.
    EXPECT_GT(report.num_parameters, 2 * 512 * 64 + 16 * 3 * 32 * 64 + 16 * 64);
  }
}

TEST_F(BenchStep, RecomputingChangesNoLoss) {
  const ModelConfig config = tiny(BenchSlice::kDeepseekV3);
  Options options = tiny_options();
  const double loss = measure_step(config, options, at::kCPU).micro_batch.loss;
  options.memory.mlp_recompute = true;
  EXPECT_EQ(measure_step(config, options, at::kCPU).micro_batch.loss, loss);
  options.memory = {.moe_layer_recompute = true};
  EXPECT_EQ(measure_step(config, options, at::kCPU).micro_batch.loss, loss);
  options.memory = {.recompute_granularity = RecomputeGranularity::kFull};
  EXPECT_EQ(measure_step(config, options, at::kCPU).micro_batch.loss, loss);
}

TEST_F(BenchStep, TheOptimizersBytesAreCounted) {
  const ModelConfig config = tiny(BenchSlice::kQwen3235b);
  Options options = tiny_options();
  options.bench.with_optimizer = true;
  const StepReport in_fp32 = measure_step(config, options, at::kCPU);
  expect_sane(in_fp32, config);
  ASSERT_TRUE(in_fp32.optimizer);
  const auto count = static_cast<double>(in_fp32.num_parameters);
  EXPECT_EQ(in_fp32.optimizer->update_bytes, 28 * count);
  EXPECT_EQ(in_fp32.optimizer->norm_bytes, 4 * count);
  EXPECT_GT(in_fp32.optimizer->step_ms, 0);
  EXPECT_FALSE(in_fp32.optimizer->copy_bandwidth);  // of GPUs only
  options.training.dtype = Dtype::kBf16;
  const StepReport in_bf16 = measure_step(config, options, at::kCPU);
  EXPECT_EQ(in_bf16.dtype, "bf16");
  EXPECT_EQ(in_bf16.optimizer->update_bytes, 30 * count);
}

TEST_F(BenchStep, TheTraceIsAChromeTrace) {
  const auto path =
      std::filesystem::temp_directory_path() / concat("moetron-bench-", ::getpid(), ".json");
  Options options = tiny_options();
  options.report.trace = path.string();
  measure_step(tiny(BenchSlice::kQwen3235b), options, at::kCPU);
  const Json trace = read_json(path);
  bool has_product = false, has_memory = false;
  for (const Json& event : trace.at("traceEvents")) {
    has_product = has_product || event.value("name", "") == "aten::mm";
    const bool counts =
        event.value("ph", "") == "C" && event.value("name", "") == "memory of the host, MiB";
    has_memory = has_memory || (counts && event.at("args").at("allocated").get<double>() > 0);
  }
  EXPECT_TRUE(has_product);
  EXPECT_TRUE(has_memory);
  std::filesystem::remove(path);
  options.report.trace = "no-such-folder/trace.json";
  EXPECT_THROW(measure_step(tiny(BenchSlice::kQwen3235b), options, at::kCPU), ConfigError);
}

StepReport report_of_a_gpu() {
  StepReport report;
  report.device = "cuda:0";
  report.dtype = "bf16";
  report.num_layers = 4;
  report.num_parameters = 1'000'000'000;
  report.micro_batch_size = 1;
  report.seq_length = 4096;
  report.flops = 28.08e12;
  report.micro_batch = {
      .first_ms = 48, .next_ms = 49, .peak_bytes = int64_t{9} << 30, .loss = 10.4};
  report.optimizer = OptimizerSpeed{.step_ms = 60,
                                    .norm_ms = 1,
                                    .update_ms = 10,
                                    .norm_bytes = 4e9,
                                    .update_bytes = 30e9,
                                    .copy_bandwidth = 4e12,
                                    .peak_bytes = int64_t{20} << 30};
  report.kernels = sum_kernels({{"gemm_a", 0, 3'000'000}, {"silu", 4'000'000, 1'000'000}});
  return report;
}

TEST(BenchReport, EndsWithTheLineOfTorchSlice) {
  const std::string text = describe(report_of_a_gpu(), "qwen3-235b", /*num_kernels=*/1);
  EXPECT_THAT(text, testing::EndsWith("\nmoetron qwen3-235b: 48.0 ms 585 TFLOP/s 85333 tokens/s "
                                      "peak 9.0 GiB\n"));
  EXPECT_THAT(text, HasSubstr("3000 GB/s  75.0 % of the copy"));
  EXPECT_THAT(text, testing::ContainsRegex("dense GEMM +3.000 ms +60.0 %"));
  EXPECT_THAT(text, testing::ContainsRegex("idle +1.000 ms +20.0 %"));
  EXPECT_THAT(text, HasSubstr("gemm_a"));
  EXPECT_THAT(text, testing::Not(HasSubstr("silu")));
}

TEST(BenchReport, ShowsNoShareWithoutACeiling) {
  StepReport report = report_of_a_gpu();
  report.optimizer->copy_bandwidth.reset();
  EXPECT_THAT(describe(report, "qwen3-235b", 0),
              testing::AllOf(HasSubstr("3000 GB/s\n"), testing::Not(HasSubstr("of the copy"))));
  const Json json = parse_json(to_json_text(report, "qwen3-235b", 0), "report");
  EXPECT_FALSE(json["optimizer"].contains("update_share_of_copy"));
}

TEST(BenchReport, JsonHoldsTheSame) {
  const Json json = parse_json(to_json_text(report_of_a_gpu(), "qwen3-235b", 1), "report");
  EXPECT_EQ(json["slice"], "qwen3-235b");
  EXPECT_DOUBLE_EQ(json["first"]["tflops_per_second"].get<double>(), 585);
  EXPECT_EQ(json["next"]["ms"], 49);
  EXPECT_DOUBLE_EQ(json["optimizer"]["update_share_of_copy"].get<double>(), 0.75);
  EXPECT_EQ(json["kernels"]["ms"]["activation"], 1);
  EXPECT_EQ(json["kernels"]["longest"].size(), 1u);
}

ParsedCommandLine parse(std::vector<const char*> words) {
  words.insert(words.begin(), {"moetron", "bench"});
  return parse_command_line(static_cast<int>(words.size()), words.data());
}

std::string error_of(const std::vector<const char*>& words) {
  return config_error([&] { run_benchmark(parse(words).options, c10::kCPU, std::cout); });
}

TEST(BenchCommand, NamesWhatIsWrong) {
  EXPECT_EQ(error_of({"step"}), "bench step needs --slice");
  EXPECT_EQ(error_of({"--slice", "qwen3-235b"}), "bench needs --benchmark");
  EXPECT_THAT(error_of({"kernels", "--slice", "qwen3-235b"}), HasSubstr("expects one of step"));
  EXPECT_THAT(error_of({"step", "--slice", "llama"}),
              HasSubstr("expects one of qwen3-235b, deepseek-v3, not \"llama\""));
  EXPECT_EQ(error_of({"step", "--slice", "qwen3-235b", "--seq-length", "0"}),
            "--seq-length must be at least 1, not 0");
  EXPECT_EQ(error_of({"step", "--slice", "qwen3-235b", "--seq-length", "1"}),
            "seq-length (1) must be at least 2: a token is labelled with the next one");
}

TEST(BenchCommand, SlicesAreNamedAsTheOptionSpellsThem) {
  for (const BenchSlice slice : {BenchSlice::kQwen3235b, BenchSlice::kDeepseekV3}) {
    const Options options = parse({"step", "--layers", "2", "--slice", slice_name(slice)}).options;
    EXPECT_EQ(options.bench.slice, slice);
    EXPECT_EQ(options.model.num_layers, 2);
  }
}

}  // namespace
}  // namespace moetron
