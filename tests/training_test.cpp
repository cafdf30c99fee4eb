// Training on several ranks (threads) against one, resuming against going on, and what stops a run.
#include <cmath>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <map>
#include <unistd.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#ifdef MOETRON_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

#include "layout_harness.h"
#include "moetron/arch/config_reader.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/config/options.h"
#include "moetron/data/pattern_dataset.h"
#include "moetron/formats/indexed_dataset.h"
#include "moetron/formats/manifest.h"
#include "moetron/measure/device_memory.h"
#include "moetron/metrics/metrics_file.h"
#include "moetron/models/model.h"
#include "moetron/run/resolve.h"
#include "moetron/train/pretrain.h"
#include "moetron/train/same_start.h"
#include "moetron/train/train_step.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kDeepseek = R"({"model_type": "deepseek_v3", "vocab_size": 64,
  "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
  "intermediate_size": 48, "moe_intermediate_size": 16, "n_routed_experts": 8,
  "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 4,
  "topk_group": 2, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
  "routed_scaling_factor": 2.5, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
  "qk_rope_head_dim": 8, "v_head_dim": 8, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.05})";

ModelConfig tiny_model() {
  ModelConfig config = read_model_config(parse_json(kDeepseek, "tiny"), "tiny");
  config.moe->bias_update_rate = 0.001;
  config.moe->aux_loss = AuxLossKind::kSequence;
  config.moe->aux_loss_coeff = 0.01;
  return config;
}

TrainedOutcome train(int ranks, int64_t steps, bool tied) {
  TrainedTask task{.config = tiny_model(), .steps = steps, .lr = 3e-3};
  task.config.tie_word_embeddings = tied;
  LayoutCase layout;
  layout.world = ranks;
  return train_in_layout(task, layout);
}

class DataParallelTest : public ::testing::TestWithParam<bool> {};

TEST_P(DataParallelTest, RanksEqualOneRankWithTheSameGlobalBatch) {
  // Not so many steps that rounding decides between two close scores of a router.
  constexpr int kSteps = 40;
  const TrainedOutcome one = train(1, kSteps, GetParam());
  EXPECT_LT(one.steps.back().loss, 0.75 * one.steps.front().loss);  // it learns
  for (const int ranks : {2, 4}) {
    expect_equal_training(train(ranks, kSteps, GetParam()), one, concat(ranks, " ranks"));
  }
}

INSTANTIATE_TEST_SUITE_P(UntiedAndTied, DataParallelTest, ::testing::Values(false, true));

TEST(TrainStep, RepeatedRunsGiveTheSameBits) {
  const TrainedOutcome first = train(2, 5, false);
  const TrainedOutcome second = train(2, 5, false);
  for (const auto& [name, weight] : first.weights) {
    EXPECT_TRUE(at::equal(second.weights.at(name), weight)) << name;
  }
}

TEST(TrainStep, ANonFiniteLossStopsBeforeTheOptimizer) {
  run_ranks(2, [](Communicator& world) {
    Mesh mesh(world, parallel_sizes(2, 1, 1, 1, 1));
    Model model(tiny_model(), {.mesh = &mesh});
    model.initialize(11);
    TrainStep train_step(model, mesh, {.clip_grad = 1.0});
    const StepBatch batch = load_step_batch(PatternDataset(), 0, {1, 8}, mesh, true);
    std::map<std::string, at::Tensor> before;
    for (const NamedSlice& s : model.weights()) before[s.name] = s.view.clone();
    // One rank's embedding is broken: every rank must stop, and know which.
    if (world.rank() == 1) model.parameters().front()->value().fill_(NAN);
    try {
      train_step.run(batch, 3, 1e-3);
      ADD_FAILURE() << "trained on";
    } catch (const NonFiniteError& error) {
      EXPECT_EQ(std::string(error.what()),
                "step 3: the loss of rank 1 is not finite; nothing was updated");
      EXPECT_EQ(error.exit_code(), kExitDoNotRestart);
    }
    if (world.rank() != 0) return;
    for (const NamedSlice& s : model.weights()) EXPECT_TRUE(at::equal(s.view, before.at(s.name)));
  });
}

// The pattern's samples, changed.
class ChangedDataset final : public TokenDataset {
 public:
  explicit ChangedDataset(std::function<void(TokenSample&)> change) : change_(std::move(change)) {}
  int64_t size() const override { return 1 << 20; }
  int64_t sequence_length() const override { return pattern_.sequence_length(); }
  TokenSample get(int64_t index) const override {
    TokenSample sample = pattern_.get(index);
    change_(sample);
    return sample;
  }

 private:
  PatternDataset pattern_;
  std::function<void(TokenSample&)> change_;
};

TEST(TrainStep, ABatchOfPaddingChangesNothingButByDecay) {
  const ChangedDataset padding([](TokenSample& sample) {
    sample.document_bounds = {0};
    std::fill(sample.loss_weights.begin(), sample.loss_weights.end(), 0.0f);
  });
  TrainedTask task{.config = tiny_model(), .steps = 1};
  task.dataset = &padding;
  for (const int ranks : {1, 2}) {
    const TrainedOutcome outcome = train_in_layout(task, {.world = ranks});
    EXPECT_EQ(outcome.steps[0].loss, 0);
    EXPECT_EQ(outcome.steps[0].aux_loss, 0);
    EXPECT_EQ(outcome.steps[0].grad_norm, 0);
    for (const auto& [name, gradient] : outcome.gradients) {
      EXPECT_EQ(gradient.abs().max().item<double>(), 0) << name;
    }
  }
}

// The gradients that come to the host while the backward goes on are the whole ones, those of a
// tied table too.
TEST(TrainStep, HybridAdamOnAGpuTrainsAsAdamDoes) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  const auto losses = [](const OffloadSettings& offload) {
    std::vector<double> found;
    run_ranks(1, [&](Communicator& world) {
      Mesh mesh(world, parallel_sizes(1, 1, 1, 1, 1));
      ModelConfig config = tiny_model();
      config.tie_word_embeddings = true;
      const at::Device device(at::kCUDA, 0);
      Model model(config, {.options = at::TensorOptions(at::kFloat).device(device), .mesh = &mesh});
      model.initialize(11);
      TrainStep train_step(model, mesh, {.offload = offload, .clip_grad = 1.0});
      for (int64_t step = 1; step <= 20; ++step) {
        const StepBatch batch =
            load_step_batch(PatternDataset(), 8 * (step - 1), {2, 8, device}, mesh, true);
        found.push_back(train_step.run(batch, step, 3e-3).loss);
      }
    });
    return found;
  };
  const std::vector<double> adam = losses({});
  for (const double fraction : {0.5, 1.0}) {
    const std::vector<double> hybrid = losses({fraction, true});
    for (size_t i = 0; i < adam.size(); ++i) EXPECT_NEAR(hybrid[i] / adam[i], 1, 1e-4) << i;
  }
}

// Full recomputation on a GPU, whose first forward runs without gradients, changes no bit.
TEST(TrainStep, RecomputationOnAGpuGivesTheSameBits) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  TrainedTask task{.config = tiny_model(), .steps = 3, .micro_batch_size = 2};
  LayoutCase layout;
  layout.model.options = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  const TrainedOutcome plain = train_in_layout(task, layout);
  for (const int64_t recompute : {2, 3, 4}) {
    layout.model.recompute = recompute_of(recompute);
    EXPECT_EQ(first_difference(train_in_layout(task, layout), plain), "") << layout.name();
  }
  at::globalContext().setDeterministicAlgorithms(false, false);
}

// What dispatch, experts and combine hold lies in memory that the first steps took from the GPU.
TEST(TrainStep, TakesNoMemoryFromTheGpuAfterItsFirstSteps) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  run_ranks(1, [&](Communicator& world) {
    Mesh mesh(world, parallel_sizes(1, 1, 1, 1, 1));
    const at::Device device(at::kCUDA, 0);
    const auto options = at::TensorOptions(at::kBFloat16).device(device);
    Model model(tiny_model(), {.options = options, .mesh = &mesh});
    model.initialize(11);
    TrainStep train_step(model, mesh, {.clip_grad = 1.0});
    int64_t taken = 0;
    for (int64_t step = 1; step <= 20; ++step) {
      const StepBatch batch =
          load_step_batch(PatternDataset(), 8 * (step - 1), {2, 8, device}, mesh, true);
      train_step.run(batch, step, 3e-3);
      if (step == 3) taken = num_device_allocations(device);
    }
    EXPECT_GT(taken, 0);
    EXPECT_EQ(num_device_allocations(device), taken);
  });
}

#ifdef MOETRON_CUDA

// From the first micro-batch to the reduced gradients, and for the next step's batch, the host runs
// ahead of the GPU: any wait is an error here.
TEST(TrainStep, WaitsForNoGpuUntilTheGradientNorm) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  using c10::cuda::SyncDebugMode;
  ModelConfig config = tiny_qwen_moe();
  config.hidden_size = 256;
  config.head_dim = config.rope.dim = 64;
  config.moe->expert_intermediate_size = 128;
  config.vocab_size = 512;
  run_ranks(1, [&](Communicator& world) {
    Mesh mesh(world, parallel_sizes(1, 1, 1, 1, 1));
    const at::Device device(at::kCUDA, 0);
    const auto options = at::TensorOptions(at::kBFloat16).device(device);
    Model model(config, {.options = options, .mesh = &mesh});
    model.initialize(11);
    TrainStep train_step(model, mesh, {.clip_grad = 1.0});
    train_step.set_trace(nullptr, /*measures_memory=*/false);
    const PatternDataset dataset(64);
    const auto begin = [&](int64_t step) {
      return PendingStepBatch(dataset, 8 * step, {2, 8, device}, mesh, true);
    };
    PendingStepBatch next = begin(0);
    for (int64_t step = 1; step <= 3; ++step) {  // what is tried, allocated and pinned once
      const StepBatch batch = std::exchange(next, begin(step)).finish();
      train_step.run(batch, step, 1e-3);
    }
    c10::cuda::warning_state().set_sync_debug_mode(SyncDebugMode::L_ERROR);
    const StepBatch batch = std::exchange(next, begin(4)).finish();
    EXPECT_NO_THROW(train_step.accumulate(batch, 4));
    EXPECT_ANY_THROW(at::zeros({1}, options).item<double>());  // it would be seen
    c10::cuda::warning_state().set_sync_debug_mode(SyncDebugMode::L_DISABLED);
  });
}

#endif

TEST(SameStart, NamesWhatRanksMustAgreeOn) {
  // What rank 0 says of rank 2, whose options are changed.
  const auto refusal = [](const std::function<void(Options & options)>& change) {
    Options other;
    change(other);
    return name_difference(greeting_text(options_record({}), 3),
                           greeting_text(options_record(other), 3), 2);
  };
  EXPECT_EQ(refusal([](Options& options) {
              options.logging.metrics = options.data.data_cache_path = "elsewhere";
              options.runtime.num_threads = 3;
            }),
            "");
  EXPECT_EQ(refusal([](Options& options) { options.training.micro_batch_size = 4; }),
            "micro-batch-size must be the same on all ranks: rank 0 has 0, rank 2 has 4");
  EXPECT_EQ(refusal([](Options& options) {
              options.parallel.hetero_pipeline_stages = {1, 2};
            }),
            "hetero-pipeline-stages must be the same on all ranks: rank 0 has [], rank 2 has "
            "[1,2]");
  EXPECT_EQ(name_difference(greeting_text(options_record({}), 3),
                            greeting_text(options_record({}), 4), 1),
            "the number of ranks must be the same on all ranks: rank 0 has 3, rank 1 has 4");
  Json newer = parse_json(greeting_text(options_record({}), 3), "greeting");
  newer["program"] = "0.2.0 (commit 1)";
  newer["options"].clear();  // another version has other options
  EXPECT_THAT(name_difference(greeting_text(options_record({}), 3), newer.dump(), 1),
              AllOf(HasSubstr("the program must be the same on all ranks: rank 0 has 0."),
                    HasSubstr("rank 1 has 0.2.0 (commit 1)")));
}

TEST(SameStart, FilesAreComparedByContent) {
  const auto refusal = [](const std::function<void(Json & files, int rank)>& change) {
    std::string said;
    try {
      run_ranks(3, [&](Communicator& world) {
        Json files = {{"data-path", {{"place", "data/a"}, {"content", "3 documents"}}}};
        change(files, world.rank());
        check_same_files(files, world);
      });
    } catch (const ConfigError& error) {
      said = error.what();
    }
    return said;
  };
  EXPECT_EQ(refusal([](Json& files, int rank) {
              files["data-path"]["place"] = "host" + std::to_string(rank);
            }),
            "");
  EXPECT_EQ(refusal([](Json& files, int rank) {
              if (rank == 1) files["data-path"]["content"] = "4 documents";
            }),
            "data-path (data/a) must be the same on all ranks: rank 0 has 3 documents, rank 1 has "
            "4 documents");
  EXPECT_EQ(refusal([](Json& files, int rank) {
              if (rank == 2) files["model"] = {{"place", "m"}, {"content", "config.json 1"}};
            }),
            "model must be the same on all ranks: rank 0 has none, rank 2 has config.json 1");
}

class PretrainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_ / "init");
    write_file(folder_ / "shape.json", kDeepseek);
    IndexedDatasetWriter writer((folder_ / "data").string(), TokenType::kUint16);
    const PatternDataset dataset;
    for (int64_t i = 0; i < 300; ++i) {
      writer.add_sequence(dataset.get(i).tokens);
      writer.end_document();
    }
    writer.commit();
  }
  void TearDown() override { fs::remove_all(folder_); }

  Options options(const std::string& save) const {
    Options o;
    o.model.model_family = ModelFamily::kDeepseek;
    o.model.num_layers = 2;
    o.model.hidden_size = 32;
    o.model.ffn_hidden_size = 48;
    o.model.num_attention_heads = 4;
    o.model.max_position_embeddings = 128;
    o.model.vocab_size = 64;
    o.model.q_lora_rank = 16;
    o.model.kv_lora_rank = 16;
    o.model.qk_nope_head_dim = 8;
    o.model.qk_rope_head_dim = 8;
    o.model.v_head_dim = 8;
    o.moe.num_experts = 8;
    o.moe.moe_router_topk = 2;
    o.moe.moe_ffn_hidden_size = 16;
    o.moe.first_k_dense_replace = 1;
    o.moe.moe_router_deepseekv3 = true;
    o.moe.moe_router_score_function = RouterScoreFunction::kSigmoid;
    o.moe.moe_router_enable_expert_bias = true;
    o.training.seq_length = 16;
    o.training.micro_batch_size = 2;
    o.training.global_batch_size = 8;
    o.training.train_iters = 12;
    o.training.eval_interval = 5;
    o.training.eval_iters = 2;
    o.optimizer.lr = 1e-3;
    o.optimizer.lr_decay_iters = 12;
    o.optimizer.lr_warmup_iters = 2;
    o.optimizer.lr_decay_style = LrDecayStyle::kCosine;
    o.checkpoint.save = (folder_ / save).string();
    o.checkpoint.save_interval = 4;
    o.data.data_path = {(folder_ / "data").string()};
    o.data.split = {90, 10, 0};
    return o;
  }

  std::vector<StepRecord> records(const std::string& save) const {
    return read_metrics(folder_ / save / "metrics.jsonl");
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_train_" + std::to_string(::getpid()));
};

TEST_F(PretrainTest, AResumedRunEqualsAnUninterruptedOneBitForBit) {
  run_ranks(2,
            [&](Communicator& world) { EXPECT_EQ(pretrain(options("whole"), world), kExitDone); });
  // Left at step 4 by exit-interval, asked to stop by the file at once after, then continued.
  run_ranks(2, [&](Communicator& world) {
    Options first = options("parts");
    first.training.exit_interval = 7;
    EXPECT_EQ(pretrain(first, world), kExitDone);
  });
  EXPECT_EQ(records("parts").back().step, 7);
  std::ofstream(folder_ / "parts" / "stop").close();
  run_ranks(
      2, [&](Communicator& world) { EXPECT_EQ(pretrain(options("parts"), world), kExitStopped); });
  EXPECT_EQ(records("parts").back().step, 8);
  EXPECT_FALSE(fs::exists(folder_ / "parts" / "stop"));
  run_ranks(2,
            [&](Communicator& world) { EXPECT_EQ(pretrain(options("parts"), world), kExitDone); });

  const auto whole = records("whole"), parts = records("parts");
  ASSERT_EQ(whole.size(), 12u);
  ASSERT_EQ(parts.size(), 12u);
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(parts[i].step, whole[i].step);
    EXPECT_EQ(parts[i].loss, whole[i].loss) << "step " << whole[i].step;
    EXPECT_EQ(parts[i].grad_norm, whole[i].grad_norm);
    EXPECT_EQ(parts[i].validation_loss, whole[i].validation_loss);
  }
  EXPECT_EQ(read_file(folder_ / "whole" / "step_0000012" / "model.safetensors"),
            read_file(folder_ / "parts" / "step_0000012" / "model.safetensors"));
}

// Its states are divided otherwise in each part of the run; on a CPU that changes nothing.
TEST_F(PretrainTest, HybridAdamTrainsAsAdamDoesWhateverTheFraction) {
  const auto run = [&](Options o) {
    o.optimizer.use_distributed_optimizer = true;
    run_ranks(2, [&](Communicator& world) { EXPECT_EQ(pretrain(o, world), kExitDone); });
  };
  run(options("adam"));
  Options hybrid = options("hybrid");
  hybrid.optimizer.optimizer = OptimizerKind::kHybridAdam;
  for (const auto& [fraction, last_step] : {std::pair{0.3, 4}, {0.85, 8}, {1.0, 12}}) {
    hybrid.optimizer.optimizer_offload_fraction = fraction;
    hybrid.training.exit_interval = last_step;
    run(hybrid);
    EXPECT_EQ(records("hybrid").back().step, last_step);
  }
  const auto adam = records("adam"), hybrids = records("hybrid");
  ASSERT_EQ(hybrids.size(), adam.size());
  for (size_t i = 0; i < adam.size(); ++i) EXPECT_EQ(hybrids[i].loss, adam[i].loss) << i;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "adam" / "step_0000012")) {
    if (entry.path().extension() != ".safetensors") continue;
    const fs::path other = folder_ / "hybrid" / fs::relative(entry.path(), folder_ / "adam");
    EXPECT_EQ(read_file(other), read_file(entry.path())) << entry.path();
  }
}

TEST_F(PretrainTest, AHuggingFaceDirectoryIsAStart) {
  run_ranks(1, [&](Communicator& world) { pretrain(options("first"), world); });
  Options second = options("second");
  second.checkpoint.load = (folder_ / "first" / "step_0000012").string();
  run_ranks(1, [&](Communicator& world) { pretrain(second, world); });
  EXPECT_LT(records("second").front().loss, records("first").front().loss);
  // A shape that differs from what was given is refused, with both values.
  second.model.hidden_size = 64;
  second.checkpoint.save = (folder_ / "third").string();
  try {
    run_ranks(1, [&](Communicator& world) { pretrain(second, world); });
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("hidden-size"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("64"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("32"), std::string::npos) << error.what();
  }
}

// Checkpoints of before noted neither files nor for how many samples their order was made.
TEST_F(PretrainTest, AnOlderCheckpointContinuesInTheSameOrder) {
  const auto train = [&](Options o, int64_t steps) {
    o.training.train_iters = steps;
    run_ranks(1, [&](Communicator& world) { EXPECT_EQ(pretrain(o, world), kExitDone); });
  };
  for (const char* save : {"older", "newer"}) train(options(save), 4);
  const fs::path folder = folder_ / "older" / "step_0000004";
  Json trainer = read_json(folder / "state" / "trainer.json");
  trainer.erase("files");
  trainer.erase("samples");
  write_json(folder / "state" / "trainer.json", trainer);
  const Json extra = read_json(folder / "manifest.json").at("extra");
  std::vector<ManifestFile> files = read_manifest(folder);
  for (ManifestFile& file : files) file = hash_file(folder, file.name);
  write_manifest(folder, files, extra);

  Options other = options("older");
  other.data.data_path = {(folder_ / "data").string(), (folder_ / "data").string()};
  EXPECT_THROW(train(other, 12), ConfigError);  // the names must do
  for (const char* save : {"older", "newer"}) train(options(save), 12);
  const auto older = records("older"), newer = records("newer");
  ASSERT_EQ(older.size(), 12u);
  for (size_t i = 0; i < older.size(); ++i) EXPECT_EQ(older[i].loss, newer[i].loss) << i;
}

TEST_F(PretrainTest, AnotherOrderOfSamplesNeedsAWord) {
  const auto train = [&](const std::vector<std::string>& accepted) {
    Options o = options("run");
    o.training.exit_interval = accepted.empty() ? 4 : 8;
    o.runtime.seed = accepted.empty() ? 1 : 2;
    o.checkpoint.accept_changes = accepted;
    run_ranks(2, [&](Communicator& world) { EXPECT_EQ(pretrain(o, world), kExitDone); });
  };
  train({});
  try {
    train({"lr"});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("at step 4"), HasSubstr("seed"),
                                    HasSubstr("--accept-changes seed")));
  }
  EXPECT_EQ(records("run").size(), 4u);
  train({"seed"});
  const Json trainer = read_json(folder_ / "run" / "step_0000008" / "state" / "trainer.json");
  EXPECT_EQ(trainer.at("consumed_samples"), 64);
  EXPECT_EQ(trainer.at("samples").at("begin"), 32);
  EXPECT_EQ(trainer.at("samples").at("train"), Json(std::vector<int64_t>{64}));
}

}  // namespace
}  // namespace moetron
