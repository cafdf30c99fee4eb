// Odd shapes of every family, from the command line to two trained steps: they train, with the same
// bits when the run is repeated, or resumed between the two; or they are refused before anything is
// trained.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <set>
#include <sstream>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/config/command_line.h"
#include "moetron/formats/indexed_dataset.h"
#include "moetron/metrics/metrics_file.h"
#include "moetron/run/resolve.h"
#include "moetron/train/pretrain.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// Options that stand for one another; those given later replace those before.
using Values = std::vector<std::string>;

struct Family {
  std::string name;
  std::string options;
  std::vector<Values> settings;  // whose values fit together, whichever are chosen
};

std::vector<Values> joined(std::vector<Values> all, const std::vector<Values>& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<Values> common_settings() {
  return {{"", "--num-layers 1", "--num-layers 3"},
          {"", "--ffn-hidden-size 1", "--ffn-hidden-size 3", "--ffn-hidden-size 64"},
          {"", "--vocab-size 1 --data-path ZEROS", "--vocab-size 2 --data-path BITS",
           "--vocab-size 1000"},
          {"", "--seq-length 1", "--seq-length 2", "--seq-length 33"},
          {"", "--micro-batch-size 1 --global-batch-size 1",
           "--micro-batch-size 3 --global-batch-size 9"},
          {"", "--dtype bf16"},
          {"", "--untie-embeddings-and-output-weights"},
          {"", "--norm-epsilon 1e-30", "--norm-epsilon 0.9"},
          {"",
           "--rotary-scaling-factor 2 --original-max-position-embeddings 1 --rotary-mscale 0 "
           "--rotary-mscale-all-dim 0",
           "--rotary-base 1.0001"}};
}

const Values kRecompute = {"", "--recompute-granularity full",
                           "--recompute-granularity full --recompute-num-layers 2",
                           "--recompute-granularity full --recompute-num-layers 9"};

std::vector<Values> grouped_query_settings() {
  return {{"", "--num-attention-heads 1 --hidden-size 2", "--num-attention-heads 1 --hidden-size 6",
           "--num-attention-heads 8 --hidden-size 96", "--num-attention-heads 2 --hidden-size 4"},
          {"", "--num-query-groups 1"},
          {"", "--kv-channels 2", "--kv-channels 64"}};
}

std::vector<Values> latent_settings() {
  return {{"", "--num-attention-heads 1 --hidden-size 1", "--num-attention-heads 1 --hidden-size 7",
           "--num-attention-heads 3 --hidden-size 9", "--num-attention-heads 8 --hidden-size 96"},
          {"", "--q-lora-rank 1", "--q-lora-rank 3 --mla-fuse-qkv", "--q-lora-rank 16"},
          {"", "--kv-lora-rank 1", "--kv-lora-rank 64"},
          {"", "--qk-nope-head-dim 1", "--qk-nope-head-dim 65"},
          {"", "--qk-rope-head-dim 2", "--qk-rope-head-dim 64"},
          {"", "--v-head-dim 1", "--v-head-dim 24", "--v-head-dim 133"}};
}

std::vector<Values> expert_settings() {
  return {{"", "--moe-ffn-hidden-size 1", "--moe-ffn-hidden-size 3", "--moe-ffn-hidden-size 64"},
          {"", "--moe-expert-capacity-factor 1e-9",
           "--moe-expert-capacity-factor 0.5 --moe-pad-expert-input-to-capacity",
           "--moe-expert-capacity-factor 1e18 --moe-pad-expert-input-to-capacity",
           "--force-drop-and-padding --moe-token-drop-policy position"},
          {"", "--moe-router-load-balancing-type seq_aux_loss",
           "--moe-router-load-balancing-type none", "--moe-aux-loss-coeff 0"},
          {"", "--moe-grouped-gemm"},
          {"", kRecompute[1], kRecompute[3], "--moe-layer-recompute", "--mlp-recompute"}};
}

std::vector<Values> deepseek_settings() {
  std::vector<Values> all = joined(common_settings(), latent_settings());
  // Which layers are dense depends on how many there are.
  all[0] = {"", "--num-layers 1", "--num-layers 2 --first-k-dense-replace 2",
            "--num-layers 3 --first-k-dense-replace 2"};
  return joined(
      joined(all, expert_settings()),
      {{"", "--num-shared-experts 1", "--num-shared-experts 3"},
       {"", "--num-experts 2 --moe-router-topk 1", "--num-experts 2 --moe-router-topk 2",
        "--num-experts 17 --moe-router-topk 5",
        "--num-experts 8 --moe-router-topk 2 --moe-router-num-groups 4 --moe-router-group-topk 1",
        "--num-experts 8 --moe-router-topk 8 --moe-router-num-groups 2 --moe-router-group-topk 2"},
       {"", "--moe-router-topk-scaling-factor 1e-6"}});
}

std::vector<Family> families() {
  const std::string latent =
      "--kv-lora-rank 6 --qk-nope-head-dim 4 --qk-rope-head-dim 4 --v-head-dim 6 ";
  const std::string experts =
      "--num-experts 4 --moe-router-topk 2 --moe-ffn-hidden-size 5 --moe-aux-loss-coeff 0.01 ";
  std::vector<Values> v2 = deepseek_settings();
  v2[v2.size() - 2].push_back("--num-experts 1 --moe-router-topk 1");
  const std::vector<Values> dense =
      joined(joined(common_settings(), grouped_query_settings()), {kRecompute});
  const std::vector<Values> qwen3_moe =
      joined(joined(joined(common_settings(), grouped_query_settings()), expert_settings()),
             {{"", "--num-experts 1 --moe-router-topk 1", "--num-experts 4 --moe-router-topk 4",
               "--num-experts 17 --moe-router-topk 5"},
              {"", "--moe-router-pre-softmax"}});
  return {{"DeepseekV3", "--model-family deepseek --moe-router-deepseekv3 " + latent + experts,
           deepseek_settings()},
          {"DeepseekV2", "--model-family deepseek " + latent + experts, v2},
          {"Qwen3Moe", "--model-family qwen --qk-layernorm " + experts, qwen3_moe},
          {"OwnMoe", "--model-family qwen --add-qkv-bias " + experts,
           joined(grouped_query_settings(), {{"", "--qk-layernorm", "--no-add-qkv-bias"}})},
          {"Qwen3", "--model-family qwen --qk-layernorm", dense},
          {"Qwen2", "--model-family qwen --add-qkv-bias", dense},
          {"Llama", "--model-family llama", dense}};
}

std::ostream& operator<<(std::ostream& out, const Family& family) {
  return out << family.name;
}

// A setting, and the number of one of its values.
using Choice = std::pair<size_t, size_t>;

// The options of cases in which any two values of different settings meet. The first pair that is
// missing begins a case; the other settings, in some order, take what brings most missing pairs.
Values covering_cases(const std::vector<Values>& settings) {
  std::set<std::pair<Choice, Choice>> missing;
  for (size_t b = 0; b < settings.size(); ++b)
    for (size_t a = 0; a < b; ++a)
      for (size_t i = 0; i < settings[a].size(); ++i)
        for (size_t j = 0; j < settings[b].size(); ++j) missing.insert({{a, i}, {b, j}});
  const auto count_new = [&](const std::vector<Choice>& chosen, const Choice& next) {
    return std::count_if(chosen.begin(), chosen.end(), [&](const Choice& other) {
      return missing.contains({std::min(other, next), std::max(other, next)});
    });
  };
  Values cases;
  std::mt19937 random(1);
  while (!missing.empty()) {
    std::vector<Choice> best;
    int64_t best_count = 0;
    for (int attempt = 0; attempt < 40; ++attempt) {
      std::vector<Choice> chosen = {missing.begin()->first, missing.begin()->second};
      std::vector<size_t> order;
      for (size_t a = 0; a < settings.size(); ++a)
        if (a != chosen[0].first && a != chosen[1].first) order.push_back(a);
      std::shuffle(order.begin(), order.end(), random);
      int64_t count = 1;
      for (const size_t setting : order) {
        std::pair<int64_t, size_t> most = {-1, 0};
        for (size_t value = 0; value < settings[setting].size(); ++value)
          most = std::max(most, {count_new(chosen, {setting, value}), value});
        chosen.emplace_back(setting, most.second);
        count += most.first;
      }
      if (count > best_count) best = chosen;
      best_count = std::max(best_count, count);
    }
    std::sort(best.begin(), best.end());
    std::string options;
    for (size_t b = 0; b < best.size(); ++b) {
      for (size_t a = 0; a < b; ++a) missing.erase({best[a], best[b]});
      options += " " + settings[b][best[b].second];
    }
    cases.push_back(options);
  }
  return cases;
}

class Shapes : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("PATH", "", 1);  // gnuplot's pictures of the losses would take most of the time
    fs::create_directories(folder_);
    for (const auto& [name, num_tokens] : {std::pair("ZEROS", 1), {"BITS", 2}, {"TEXT", 17}}) {
      IndexedDatasetWriter writer((folder_ / name).string(), TokenType::kUint16);
      for (int32_t i = 0; i < 40; ++i) {
        std::vector<int32_t> tokens;
        for (int32_t j = 0; j < 3 + i; ++j) tokens.push_back((i * i + j * j * j) % num_tokens);
        writer.add_sequence(tokens);
        writer.end_document();
      }
      writer.commit();
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Two steps by the small model of `options`, or those after its checkpoint; names in the options
  // are in this test's folder. What pretrain throws is thrown, and then nothing was trained.
  std::vector<StepRecord> train(const std::string& options, bool resumes = false) const {
    std::istringstream in(
        "moetron pretrain --num-layers 2 --hidden-size 8 --ffn-hidden-size 12 "
        "--num-attention-heads 2 --vocab-size 17 --data-path TEXT --split 100,0,0 --eval-iters 0 "
        "--seq-length 8 --micro-batch-size 2 --global-batch-size 4 --train-iters 2 --lr 1e-2 "
        "--metrics METRICS " +
        options);
    Values words;
    for (std::string word; in >> word;) {
      const std::string option = words.empty() ? "" : words.back();
      const bool is_path = option == "--data-path" || option == "--save" || option == "--load" ||
                           option == "--metrics";
      words.push_back(is_path ? (folder_ / word).string() : word);
    }
    std::vector<const char*> argv;
    for (const std::string& word : words) argv.push_back(word.c_str());
    const fs::path metrics = folder_ / "METRICS";
    if (!resumes) fs::remove(metrics);
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    std::exception_ptr failure;
    try {
      const auto parsed = parse_command_line(static_cast<int>(argv.size()), argv.data());
      validate(parsed.options, Command::kPretrain, /*world_size=*/1);
      run_ranks(1, [&](Communicator& world) { pretrain(parsed.options, world); });
    } catch (...) {
      failure = std::current_exception();
    }
    testing::internal::GetCapturedStdout();
    testing::internal::GetCapturedStderr();
    std::vector<StepRecord> records;
    if (fs::exists(metrics)) records = read_metrics(metrics);
    if (!failure) return records;
    EXPECT_TRUE(resumes || records.empty()) << options << " failed in step " << records.size() + 1;
    std::rethrow_exception(failure);
  }

  // The sentence that refuses the options; empty if they are taken.
  std::string refusal(const std::string& options) const {
    try {
      train(options);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  }

  void write_config(const std::string& checkpoint, const Json& config) const {
    write_file(folder_ / checkpoint / "config.json", config.dump());
    fs::remove(folder_ / checkpoint / "manifest.json");  // the change is meant
  }
  Json read_config(const std::string& checkpoint) const {
    return read_json(folder_ / checkpoint / "config.json");
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_shapes_" + std::to_string(::getpid()));
};

class ShapesOf : public Shapes, public ::testing::WithParamInterface<Family> {};

TEST_P(ShapesOf, AnyTwoTrainWithTheSameBitsAgain) {
  const Values cases = covering_cases(GetParam().settings);
  for (size_t number = 0; number < cases.size(); ++number) {
    const std::string text = GetParam().options + cases[number];
    const bool resumes = number % 3 == 0;  // saving takes longer than training
    try {
      const auto whole = train(text);
      if (resumes) train(text + " --save PARTS --exit-interval 1");
      const auto parts = train(text + (resumes ? " --save PARTS" : ""), resumes);
      fs::remove_all(folder_ / "PARTS");
      ASSERT_EQ(whole.size(), 2u) << text;
      ASSERT_EQ(parts.size(), 2u) << text;
      for (size_t i = 0; i < whole.size(); ++i) {
        EXPECT_TRUE(std::isfinite(whole[i].loss) && std::isfinite(*whole[i].grad_norm)) << text;
        EXPECT_EQ(parts[i].loss, whole[i].loss) << text << ", step " << i + 1;
        EXPECT_EQ(parts[i].grad_norm, whole[i].grad_norm) << text << ", step " << i + 1;
      }
    } catch (const std::exception& error) {
      ADD_FAILURE() << text << ": " << first_line(error);
    }
  }
  std::printf("%s: %zu cases\n", GetParam().name.c_str(), cases.size());
}

INSTANTIATE_TEST_SUITE_P(All, ShapesOf, ::testing::ValuesIn(families()),
                         [](const auto& instance) { return instance.param.name; });

TEST_F(Shapes, ThatCannotBeAreRefusedInOneSentence) {
  struct Refused {
    std::string family, options, sentence;
  };
  for (const auto& [family, options, sentence] : std::initializer_list<Refused>{
           {"Llama", "--num-attention-heads 3",
            "num-attention-heads (3) must divide hidden-size (8) since kv-channels is not given"},
           {"Llama", "--num-attention-heads 3 --kv-channels 4",
            "hidden-size (8) must be a multiple of num-attention-heads (3)"},
           {"DeepseekV2", "--num-attention-heads 3",
            "hidden-size (8) must be a multiple of num-attention-heads (3)"},
           {"Qwen3", "--num-query-groups 3",
            "num-attention-heads (2) must be a multiple of num-query-groups (3)"},
           {"Qwen2", "--kv-channels 7", "kv-channels (7) must be even for rotary embeddings"},
           {"Qwen3Moe", "--num-attention-heads 8",
            "hidden-size (8) over num-attention-heads (8), the width of a head without "
            "kv-channels, must be even for rotary embeddings"},
           {"DeepseekV3", "--qk-rope-head-dim 3",
            "qk-rope-head-dim (3) must be even for rotary embeddings"},
           {"DeepseekV3", "--mla-fuse-qkv",
            "mla-fuse-qkv (true) needs q-lora-rank, which is not given"},
           {"DeepseekV3", "--num-query-groups 1",
            "num-query-groups (1) must equal num-attention-heads (2) under multi-head latent "
            "attention"},
           {"DeepseekV3", "--moe-router-topk 5",
            "moe-router-topk (5) must be at most num-experts (4)"},
           {"DeepseekV3", "--moe-router-num-groups 3 --moe-router-group-topk 1",
            "num-experts (4) must be a multiple of moe-router-num-groups (3)"},
           {"DeepseekV3", "--moe-router-num-groups 2 --moe-router-group-topk 3",
            "moe-router-group-topk (3) must be at most moe-router-num-groups (2)"},
           {"DeepseekV3", "--moe-router-topk 3 --moe-router-num-groups 2 --moe-router-group-topk 1",
            "moe-router-topk (3) must be at most the 2 experts of the groups that "
            "moe-router-group-topk (1) of moe-router-num-groups (2) keeps"},
           {"DeepseekV3", "--moe-router-num-groups 4 --moe-router-group-topk 2",
            "moe-router-num-groups (4) leaves fewer than 2 of num-experts (4) in a group"},
           {"DeepseekV3", "--num-experts 1 --moe-router-topk 1",
            "num-experts (1) must be at least 2: DeepSeek-V3's router scores a group by its best "
            "two"},
           {"DeepseekV2", "--first-k-dense-replace 3",
            "first-k-dense-replace (3) must be at most num-layers (2)"},
           {"Qwen3Moe", "--moe-pad-expert-input-to-capacity",
            "moe-pad-expert-input-to-capacity (true) needs a capacity: "
            "moe-expert-capacity-factor or force-drop-and-padding"},
           {"Llama", "--max-position-embeddings 7",
            "seq-length (8) must be at most max-position-embeddings (7)"},
           {"Llama", "--hidden-size 300000 --num-attention-heads 1",
            "hidden-size (300000) must be from 1 to 262144"},
           {"Llama", "--norm-epsilon 1e-31", "norm-epsilon (1e-31) must be from 1e-30 to 1"}}) {
    for (const Family& known : families()) {
      if (known.name != family) continue;
      EXPECT_EQ(refusal(known.options + " " + options), sentence) << family << " " << options;
    }
  }
  for (const Family& family : families()) {
    for (const char* option :
         {"num-layers", "hidden-size", "ffn-hidden-size", "num-attention-heads", "vocab-size",
          "seq-length", "micro-batch-size", "num-query-groups", "kv-channels", "q-lora-rank",
          "kv-lora-rank", "qk-nope-head-dim", "qk-rope-head-dim", "v-head-dim", "num-experts",
          "moe-router-topk", "moe-ffn-hidden-size", "moe-expert-capacity-factor"}) {
      const std::string sentence = refusal(concat(family.options, " --", option, " 0"));
      EXPECT_TRUE(sentence.find(option) != std::string::npos &&
                  sentence.find('0') != std::string::npos &&
                  sentence.find('\n') == std::string::npos)
          << family.name << ", " << option << ": " << sentence;
    }
  }
}

// On a CPU it is attention that differs: the same values, rounded otherwise.
TEST_F(Shapes, PlainOperatorsTrainAsTheFastest) {
  for (const Family& family : families()) {
    const auto fastest = train(family.options);
    const auto plain = train(family.options + " --transformer-impl local");
    const auto with_attention =
        train(family.options + " --transformer-impl local --use-flash-attn");
    bool differs = false;
    for (size_t i = 0; i < fastest.size(); ++i) {
      EXPECT_NEAR(plain.at(i).loss, fastest[i].loss, 1e-5 * fastest[i].loss) << family.name;
      EXPECT_NEAR(*plain.at(i).grad_norm, *fastest[i].grad_norm, 1e-4 * *fastest[i].grad_norm)
          << family.name;
      EXPECT_EQ(*with_attention.at(i).grad_norm, *fastest[i].grad_norm) << family.name;
      differs = differs || *plain.at(i).grad_norm != *fastest[i].grad_norm;
    }
    EXPECT_TRUE(differs) << family.name << ": the option changed no bit";
  }
}

// What options cannot say: layers that a config.json makes dense.
TEST_F(Shapes, DenseLayersOfAConfigFileTrainAsAnyOther) {
  const auto losses_of = [&](const std::string& checkpoint) {
    const std::vector<StepRecord> records = train("--load " + checkpoint);
    return std::pair(records.at(0).loss, records.at(1).loss);
  };
  train("--model-family qwen --qk-layernorm --save QWEN");
  const std::string qwen = "QWEN/step_0000002";
  const auto of_qwen3 = losses_of(qwen);
  Json config = read_config(qwen);
  config["model_type"] = "qwen3_moe";
  config["architectures"] = {"Qwen3MoeForCausalLM"};
  config["num_experts"] = 4;
  config["num_experts_per_tok"] = 2;
  config["moe_intermediate_size"] = 5;
  config["mlp_only_layers"] = {0, 1};
  write_config(qwen, config);
  EXPECT_EQ(losses_of(qwen), of_qwen3);
  config["mlp_only_layers"] = Json::array();
  config["decoder_sparse_step"] = 3;
  write_config(qwen, config);
  EXPECT_EQ(losses_of(qwen), of_qwen3);

  train(families()[0].options + "--first-k-dense-replace 2 --v-head-dim 11 --save DEEPSEEK");
  const std::string deepseek = "DEEPSEEK/step_0000002";
  config = read_config(deepseek);
  EXPECT_EQ(config.at("first_k_dense_replace"), 2);
  EXPECT_EQ(config.at("v_head_dim"), 11);
  const auto of_two = [&] {
    const auto records = train("--load " + deepseek + " --v-head-dim 11 --kv-lora-rank 6");
    return std::pair(records.at(0).loss, records.at(1).loss);
  };
  const auto of_deepseek = of_two();
  config["first_k_dense_replace"] = 5;  // more than there are
  write_config(deepseek, config);
  EXPECT_EQ(of_two(), of_deepseek);
}

}  // namespace
}  // namespace moetron
