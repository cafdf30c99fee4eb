#include "moetron/run/resolve.h"

#include "moetron/arch/arch_test_data.h"
#include "moetron/base/file.h"
#include "moetron/base/mistakes.h"
#include "moetron/run/run_test_data.h"

namespace moetron {
namespace {

// A whole model, small.
std::string shaped(const std::string& more = "") {
  return pretrain(
      "--num-layers 4 --hidden-size 64 --ffn-hidden-size 96 --num-attention-heads 4 "
      "--num-query-groups 2 " +
      more);
}

std::string moe_shaped(const std::string& more = "") {
  return shaped("--num-experts 8 --moe-router-topk 2 --moe-ffn-hidden-size 32 " + more);
}

RunSpec resolved(const std::string& command_line, const RunFacts& facts = {}) {
  return resolve_run(parse(command_line).options, facts);
}

std::string refusal(const std::string& command_line, const RunFacts& facts = {}) {
  return config_error([&] { resolved(command_line, facts); });
}

TEST(Mistakes, AreGatheredAndToldOnce) {
  Mistakes mistakes;
  mistakes.throw_if_any();
  EXPECT_TRUE(mistakes.check(true, "never"));
  EXPECT_FALSE(mistakes.check(false, "a (", 1, ")"));
  EXPECT_FALSE(mistakes.collect([] { throw ConfigError("b"); }));
  mistakes.add("b");
  EXPECT_EQ(mistakes.count(), 2u);
  EXPECT_THROW(mistakes.collect([] { throw InputError("another kind"); }), InputError);
  EXPECT_EQ(config_error([&] { mistakes.throw_if_any(); }), "a (1)\nb");
}

// Megatron's local implementation has flash attention where it is asked for.
TEST(Resolve, PlainOperatorsAreAskedFor) {
  struct Case {
    const char* options;
    bool plain, plain_attention;
  };
  for (const Case& c :
       {Case{"", false, false},
        {"--transformer-impl transformer_engine --use-flash-attn", false, false},
        {"--module-impl {core_attn:local}", false, false},
        {"--transformer-impl local", true, true},
        {"--transformer-impl local --use-flash-attn", true, false},
        {"--transformer-impl local --module-impl {core_attn:local}", true, false}}) {
    const OperatorsSpec found = resolved(shaped(c.options)).operators;
    EXPECT_EQ(found.plain, c.plain) << c.options;
    EXPECT_EQ(found.plain_attention, c.plain_attention) << c.options;
  }
}

// One sentence each, of every topic, whether the model is known or not.
TEST(Resolve, TellsAllMistakesTogether) {
  const std::string three =
      "num-attention-heads (4) must be a multiple of tensor-model-parallel-size (3)\n"
      "num-query-groups (2) must be a multiple of tensor-model-parallel-size (3), or divide it\n"
      "global-batch-size (8) must be a multiple of micro-batch-size (2) times the data-parallel "
      "ranks (3)\n"
      "min-lr (1) must be at most lr (0.001)";
  const std::string options = "--tensor-model-parallel-size 3 --min-lr 1";
  EXPECT_EQ(invalid(shaped(options), 9), three);
  EXPECT_EQ(refusal(shaped(options), {.world_size = 9}), three);
  EXPECT_EQ(invalid(pretrain("--num-attention-heads 4 --num-query-groups 2 " + options), 9), three);
  EXPECT_EQ(invalid(moe_shaped("--expert-model-parallel-size 3 --scheduler dualpipev "
                               "--pipeline-model-parallel-size 2 --split 0,1,0"),
                    6),
            "num-experts (8) must be a multiple of expert-model-parallel-size (3)\n"
            "global-batch-size (8) must be a multiple of micro-batch-size (2) times the "
            "data-parallel ranks (3)\n"
            "split (0, ...) leaves nothing to train on");
}

TEST(Resolve, TellsTheMistakesOfAModelTogether) {
  EXPECT_EQ(invalid(shaped("--norm-epsilon 1e-31 --kv-channels 1000000 --moe-router-topk 2")),
            "kv-channels (1000000) must be from 1 to 262144\n"
            "norm-epsilon (1e-31) must be from 1e-30 to 1\n"
            "moe-router-topk needs num-experts, which is not given");
  EXPECT_EQ(invalid(shaped("--moe-router-topk 2 --moe-ffn-hidden-size 8")),
            "moe-router-topk needs num-experts, which is not given\n"
            "moe-ffn-hidden-size needs num-experts, which is not given");
  EXPECT_EQ(refusal(pretrain("--hidden-size 64")),
            "num-layers is missing: without a model in --load the options must give its shape\n"
            "num-attention-heads is missing: without a model in --load the options must give its "
            "shape");
  EXPECT_EQ(invalid(pretrain("--hidden-size 64")), "") << "a checkpoint may say the rest";
}

// Of the numbers of the model, of its parts, of what divides it and of the run: none hides another.
TEST(Resolve, MistakesOfTheModelHideNoOthers) {
  const std::string options =
      "--norm-epsilon 1e-31 --rotary-mscale 1 --moe-router-topk 9 --moe-router-num-groups 2 "
      "--tensor-model-parallel-size 2 --expert-model-parallel-size 3 "
      "--pipeline-model-parallel-size 3 --hetero-pipeline-stages 1 1 1 --min-lr 1";
  const std::string all =
      "moe-router-topk (9) must be at most num-experts (8)\n"
      "norm-epsilon (1e-31) must be from 1e-30 to 1\n"
      "moe-router-num-groups does not go with model-family (qwen)\n"
      "rotary-mscale, rotary-mscale-all-dim, original-max-position-embeddings, rotary-beta-fast "
      "and rotary-beta-slow need rotary-scaling-factor\n"
      "num-experts (8) must be a multiple of expert-model-parallel-size (3)\n"
      "global-batch-size (8) must be a multiple of micro-batch-size (2) times the data-parallel "
      "ranks (3)\n"
      "hetero-pipeline-stages is 3 layers in all, but num-layers is 4\n"
      "min-lr (1) must be at most lr (0.001)";
  EXPECT_EQ(invalid(moe_shaped(options), 18), all);
  EXPECT_EQ(refusal(moe_shaped(options), {.world_size = 18}), all);
}

TEST(Resolve, OptionsThatContradictTheLoadedModelAreToldTogether) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("moetron_resolve_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", deepseek_v3_json().dump());
  const RunFacts facts{.world_size = 3, .model_folder = folder};
  const std::string file = (folder / "config.json").string();
  const std::string load =
      "pretrain --seq-length 64 --micro-batch-size 1 --global-batch-size 3 "
      "--train-iters 10 --lr 1e-3 --data-path data --load " +
      folder.string();
  EXPECT_EQ(refusal(load + " --num-layers 5 --hidden-size 32", facts),
            "num-layers (5) contradicts the model that is loaded: " + file + " says 3\n" +
                "hidden-size (32) contradicts the model that is loaded: " + file + " says 64");
  EXPECT_EQ(refusal(load + " --tensor-model-parallel-size 3", facts),
            "num-attention-heads (4) must be a multiple of tensor-model-parallel-size (3)\n"
            "num-shared-experts (1) times moe-ffn-hidden-size (32) must be a multiple of "
            "tensor-model-parallel-size (3)");
  EXPECT_EQ(refusal(load + " --num-layers 5 --tensor-model-parallel-size 3", facts),
            "num-layers (5) contradicts the model that is loaded: " + file + " says 3\n" +
                "num-attention-heads (4) must be a multiple of tensor-model-parallel-size (3)\n"
                "num-shared-experts (1) times moe-ffn-hidden-size (32) must be a multiple of "
                "tensor-model-parallel-size (3)");
  const RunSpec spec = resolved(load, facts);
  EXPECT_EQ(spec.model.num_mtp_layers, 0);
  ASSERT_FALSE(spec.remarks.empty());
  EXPECT_NE(spec.remarks.back().find("1 multi-token-prediction layers"), std::string::npos);
  std::filesystem::remove_all(folder);
}

TEST(Resolve, TheTokenizerMustFit) {
  const std::string tokenizer = "--tokenizer bytes ";
  EXPECT_EQ(refusal(shaped(tokenizer + "--tokenizer-model x"), {.tokenizer = {{300, 256}}}),
            "tokenizer (bytes) and tokenizer-model (x) contradict each other\n"
            "tokenizer-model: 300 tokens do not fit the model's vocabulary of 256");
  EXPECT_EQ(resolved(shaped(), {.tokenizer = {{200, 100}}}).model.vocab_size, 256);
}

TEST(Resolve, SaysWhatTheOptionsMean) {
  const RunSpec spec = resolved(
      moe_shaped("--expert-model-parallel-size 2 --moe-token-dispatcher-type flex "
                 "--moe-layer-recompute --force-drop-and-padding --eval-iters -1 --save run"),
      {.world_size = 4});
  EXPECT_EQ(spec.sizes.ep, 2);
  EXPECT_EQ(spec.sizes.dp, 4);
  EXPECT_EQ(spec.batch.num_micro_batches, 1);
  EXPECT_EQ(spec.batch.tokens(), 128);
  EXPECT_EQ(spec.experts.dispatcher, TokenDispatcher::kDeepep);
  EXPECT_EQ(spec.experts.scheme, DispatchScheme::kPerRank);
  EXPECT_EQ(spec.experts.capacity_factor, 1.0);
  EXPECT_TRUE(spec.experts.pad_to_capacity);
  EXPECT_EQ(spec.recompute.kind, Recompute::kMoeLayer);
  EXPECT_EQ(spec.steps.eval, 0);
  EXPECT_EQ(spec.lr.decay_iters, 10);
  EXPECT_EQ(spec.log.metrics, "run/metrics.jsonl");
  EXPECT_EQ(spec.log.picture, "run/loss.png");
  EXPECT_EQ(spec.options["moe"]["moe-token-dispatcher-type"], "deepep");
  const auto experts = [](const std::string& more) { return resolved(moe_shaped(more)).experts; };
  EXPECT_EQ(experts("").capacity_factor, std::nullopt);
  EXPECT_FALSE(experts("--moe-expert-capacity-factor 1.5").pad_to_capacity);
  EXPECT_EQ(experts("--moe-expert-capacity-factor 1.5").capacity_factor, 1.5);
  EXPECT_EQ(experts("--force-drop-and-padding --moe-expert-capacity-factor 2").capacity_factor, 2);
}

// Both read one resolution.
TEST(Resolve, SimulateAndPretrainRefuseTheSame) {
  const std::string words =
      "--num-layers 4 --hidden-size 64 --ffn-hidden-size 96 --num-attention-heads 4 "
      "--vocab-size 256 --seq-length 64 --max-position-embeddings 32 --micro-batch-size 2 "
      "--global-batch-size 8 --tensor-model-parallel-size 8 ";
  const std::string simulated =
      invalid("simulate --cost model --hardware a --world-size 8 " + words);
  const std::string trained =
      invalid("pretrain --model-family qwen --train-iters 10 --lr 1e-3 --data-path a " + words, 8);
  EXPECT_EQ(simulated, trained);
  EXPECT_EQ(trained,
            "num-attention-heads (4) must be a multiple of tensor-model-parallel-size (8)\n"
            "seq-length (64) must be at most max-position-embeddings (32)");
}

TEST(Fp8, IsResolved) {
  EXPECT_FALSE(resolved(moe_shaped("")).fp8.has_value());
  const RunSpec spec = resolved(moe_shaped("--fp8-format e4m3"));
  ASSERT_TRUE(spec.fp8.has_value());
  EXPECT_EQ(spec.fp8->first_layer, 0);
  EXPECT_EQ(spec.fp8->end_layer, spec.model.num_layers);
  EXPECT_TRUE(spec.fp8->weight_grad && spec.fp8->dispatch && !spec.fp8->gradients_in_e5m2);
  EXPECT_EQ(spec.dtype, Dtype::kAuto);

  const RunSpec by_type = resolved(moe_shaped(
      "--dtype fp8 --fp8-wgrad bf16 --first-last-layers-bf16 --num-layers-at-end-in-bf16 0"));
  ASSERT_TRUE(by_type.fp8.has_value());
  EXPECT_EQ(by_type.dtype, Dtype::kAuto);
  EXPECT_FALSE(by_type.fp8->weight_grad || by_type.fp8->dispatch);
  EXPECT_EQ(by_type.fp8->first_layer, 1);
  EXPECT_EQ(by_type.fp8->end_layer, by_type.model.num_layers);
  EXPECT_TRUE(resolved(moe_shaped("--bf16 --fp8 hybrid --fp8-wgrad bf16")).fp8->gradients_in_e5m2);
}

TEST(Fp8, RefusesWhatIsNoWholeBlock) {
  const std::string text =
      refusal(moe_shaped("--fp8-format e4m3 --tensor-model-parallel-size 2 --moe-fp8-dispatch "
                         "--fp8-wgrad bf16"),
              {.world_size = 2});
  EXPECT_NE(text.find("fp8-format: tensor-model-parallel-size (2) divides q_proj ("),
            std::string::npos)
      << text;
  EXPECT_NE(text.find(", which must be multiples of 128"), std::string::npos) << text;
  for (const char* way : {"--fp8-format e4m3", "--dtype fp8"}) {
    EXPECT_EQ(refusal(moe_shaped(concat(way, " --transformer-impl local"))),
              "transformer-impl (local) contradicts fp8-format (e4m3): plain operators do not "
              "multiply in 8 bits");
  }
  EXPECT_NE(text.find("moe-fp8-dispatch (true) needs fp8-wgrad (bf16) to be fp8"),
            std::string::npos)
      << text;
  const std::string none = refusal(
      moe_shaped("--fp8-format e4m3 --first-last-layers-bf16 --num-layers-at-start-in-bf16 99"));
  EXPECT_NE(none.find("fp8-format: no layer is left"), std::string::npos) << none;
}

}  // namespace
}  // namespace moetron
