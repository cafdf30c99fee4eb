#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/arch/inventory.h"
#include "moetron/base/error.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/convert/megatron_args.h"
#include "moetron/convert/megatron_folder.h"
#include "moetron/convert/megatron_models_test.h"
#include "moetron/convert/megatron_source.h"
#include "moetron/convert/megatron_tensors.h"
#include "moetron/convert/write_megatron.h"
#include "moetron/formats/torch_file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

// Writes, reads, and compares every element; every range of one tensor, too.
void expect_round_trip(const ModelConfig& config, const MegatronLayout& layout) {
  const TemporaryFolder folder("megatron");
  const CountingSource source(config);
  const MegatronReport report =
      write_megatron(source, config, layout, {}, folder.path(), {.num_threads = 2});
  EXPECT_EQ(report.num_files, num_files(layout));
  EXPECT_TRUE(report.left_out.empty());
  const MegatronSource read(folder.path(), config);
  EXPECT_EQ(read.layout().stage_layers, layout.stage_layers);
  EXPECT_EQ(read.layout().v_placement, layout.v_placement);
  EXPECT_EQ(read.layout().padded_vocab, layout.padded_vocab);
  ASSERT_EQ(read.tensors().size(), source.tensors().size());
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const SafetensorsTensor& tensor = source.tensors()[i];
    EXPECT_EQ(read.tensors()[i].name, tensor.name);
    EXPECT_EQ(read.tensors()[i].shape, tensor.shape);
    EXPECT_EQ(read.tensors()[i].dtype, tensor.dtype);
    uint64_t elements = 1;
    for (const int64_t dim : tensor.shape) elements *= static_cast<uint64_t>(dim);
    EXPECT_EQ(read_range(read, i, 0, elements), read_range(source, i, 0, elements)) << tensor.name;
    const uint64_t begin = elements / 3;
    const uint64_t count = elements / 2;
    EXPECT_EQ(read_range(read, i, begin, count), read_range(source, i, begin, count));
  }
}

TEST(MegatronTest, RoundTripsEveryFamily) {
  for (const ModelConfig& config :
       {llama(), qwen2(), qwen3_moe(), deepseek_v3(), deepseek_v3_mtp()})
    for (const bool transformer_engine : {false, true})
      for (const bool grouped : {false, true}) {
        MegatronLayout layout = layout_of(config);
        layout.transformer_engine = transformer_engine;
        layout.grouped_experts = grouped;
        expect_round_trip(config, layout);
      }
}

TEST(MegatronTest, RoundTripsEveryLayout) {
  for (const ModelConfig& config : {qwen2(), qwen3_moe(), deepseek_v3(), deepseek_v3_mtp()}) {
    MegatronLayout layout = layout_of(config);
    layout.tp = 2;
    layout.padded_vocab = padded_vocab_size(config, 8, 2);  // the second rank has padding alone
    layout.pp = 2;
    layout.stage_layers = {1, 3};
    expect_round_trip(config, layout);
    layout.num_chunks = 2;
    layout.stage_layers = {1, 1, 2, 0};
    expect_round_trip(config, layout);
    layout.v_placement = true;
    expect_round_trip(config, layout);
    if (!config.moe) continue;
    layout.ep = 4;
    expect_round_trip(config, layout);
    layout.tpe = 2;
    layout.ep = 2;
    expect_round_trip(config, layout);
  }
}

// The order within fused parameters, written out by hand.
TEST(MegatronTest, FusesAsMegatronDoes) {
  const ModelConfig config = qwen3_moe();
  MegatronLayout layout = layout_of(config);
  layout.tp = 2;
  layout.ep = 2;
  layout.pp = 2;
  layout.stage_layers = {2, 2};
  const MegatronModel model(config, layout, MtpTensors::kLeaveOut);
  const auto describe = [&](const MegatronTensor& tensor) {
    std::string text = tensor.name + " " + shape_text(tensor.shape);
    for (const TensorPiece& piece : tensor.pieces) {
      const TensorInfo& info = model.inventory()[piece.tensor];
      text += concat("; ", info.name.substr(info.name.find(".") + 1), " ", piece.row, "+",
                     piece.rows, " ", piece.column, "+", piece.columns);
    }
    return text;
  };
  std::map<std::string, std::string> found;
  for (const MegatronTensor& tensor : model.chunk({.tp = 1, .tpe = 0, .ep = 1, .pp = 1}, 0))
    found.emplace(tensor.name, describe(tensor));
  // 4 heads of 3 in 2 groups: rank 1 has group 1, which is queries 6..11, and key and value 3..5.
  EXPECT_EQ(found["decoder.layers.1.self_attention.linear_qkv.weight"],
            "decoder.layers.1.self_attention.linear_qkv.weight [12, 8]; "
            "layers.3.self_attn.q_proj.weight 6+6 0+8; layers.3.self_attn.k_proj.weight 3+3 0+8; "
            "layers.3.self_attn.v_proj.weight 3+3 0+8");
  EXPECT_EQ(found["decoder.layers.0.self_attention.linear_proj.weight"],
            "decoder.layers.0.self_attention.linear_proj.weight [8, 6]; "
            "layers.2.self_attn.o_proj.weight 0+8 6+6");
  EXPECT_EQ(found["decoder.layers.0.mlp.experts.local_experts.1.linear_fc1.weight"],
            "decoder.layers.0.mlp.experts.local_experts.1.linear_fc1.weight [12, 8]; "
            "layers.2.mlp.experts.3.gate_proj.weight 0+6 0+8; "
            "layers.2.mlp.experts.3.up_proj.weight 0+6 0+8");
  EXPECT_FALSE(found.contains("embedding.word_embeddings.weight"));
  EXPECT_TRUE(found.contains("output_layer.weight"));
}

std::set<std::string> names_of_last_layer(const ModelConfig& config, bool grouped_experts) {
  MegatronLayout layout = layout_of(config);
  layout.transformer_engine = true;
  layout.grouped_experts = grouped_experts;
  const std::string prefix = "decoder.layers.3.";
  std::set<std::string> names;
  for (const MegatronTensor& tensor :
       MegatronModel(config, layout, MtpTensors::kLeaveOut).chunk({}, 0))
    if (tensor.name.starts_with(prefix)) names.insert(tensor.name.substr(prefix.size()));
  return names;
}

// TransformerEngine's linears hold the norms before them, its grouped linears all experts.
TEST(MegatronTest, HasTransformerEnginesNames) {
  EXPECT_EQ(names_of_last_layer(llama(), false),
            (std::set<std::string>{"mlp.linear_fc1.layer_norm_weight", "mlp.linear_fc1.weight",
                                   "mlp.linear_fc2.weight", "self_attention.linear_proj.weight",
                                   "self_attention.linear_qkv.layer_norm_weight",
                                   "self_attention.linear_qkv.weight"}));
  ModelConfig config = deepseek_v3();
  config.moe->num_experts = 2;
  EXPECT_EQ(names_of_last_layer(config, true),
            (std::set<std::string>{
                "input_layernorm.weight", "mlp.experts.linear_fc1.weight0",
                "mlp.experts.linear_fc1.weight1", "mlp.experts.linear_fc2.weight0",
                "mlp.experts.linear_fc2.weight1", "mlp.router.expert_bias", "mlp.router.weight",
                "mlp.shared_experts.linear_fc1.weight", "mlp.shared_experts.linear_fc2.weight",
                "pre_mlp_layernorm.weight", "self_attention.linear_kv_down_proj.weight",
                "self_attention.linear_kv_up_proj.layer_norm_weight",
                "self_attention.linear_kv_up_proj.weight", "self_attention.linear_proj.weight",
                "self_attention.linear_q_down_proj.weight",
                "self_attention.linear_q_up_proj.layer_norm_weight",
                "self_attention.linear_q_up_proj.weight"}));
}

// Megatron's former GroupedMLP multiplies tokens [tokens, hidden] by weight1.view(experts, hidden,
// 2 * width) and weight2.view(experts, width, hidden): gate and up are side by side.
TEST(MegatronTest, ReadsLegacyExperts) {
  const ModelConfig config = qwen3_moe();
  const CountingSource source(config);
  const int64_t hidden = config.hidden_size, width = config.moe->expert_intermediate_size / 2;
  MegatronLayout layout = layout_of(config);
  layout.tp = layout.tpe = layout.ep = 2;
  layout.padded_vocab = padded_vocab_size(config, 8, 2);
  layout.legacy_experts = true;
  const MegatronModel model(config, layout, MtpTensors::kLeaveOut);
  const TemporaryFolder folder("megatron");
  for (const MegatronRank& rank : file_ranks(layout)) {
    const std::vector<MegatronTensor> chunk = model.chunk(rank, 0);
    // Element `at` of the parameter of a layer.
    const auto element = [&](int64_t layer, bool is_first, int64_t at) {
      const int64_t columns = is_first ? 2 * width : hidden;
      const int64_t rows = is_first ? hidden : width;
      const int64_t expert = at / (rows * columns) + rank.ep * 2;
      const int64_t row = at / columns % rows, column = at % columns;
      const char* part = !is_first ? "down" : column < width ? "gate" : "up";
      const size_t index = find_tensor(source, concat("model.layers.", layer, ".mlp.experts.",
                                                      expert, ".", part, "_proj.weight"));
      const int64_t unit = rank.tpe * width + (is_first ? column % width : row);
      const int64_t place = is_first ? unit * hidden + row : column * 2 * width + unit;
      return read_range(source, index, static_cast<uint64_t>(place), 1)[0];
    };
    TorchContents contents;
    contents.args = megatron_args(config, layout, MtpTensors::kLeaveOut);
    TorchStateDict state{.key = "model", .tensors = {}, .names_of_none = {}};
    for (const MegatronTensor& tensor : chunk)
      state.tensors.push_back({tensor.name, SafetensorsDtype::kI32, tensor.shape});
    contents.models.push_back(state);
    const fs::path place = folder.path() / "release" / rank_folder(layout, rank);
    fs::create_directories(place);
    write_torch_file(place / kMegatronFile, contents, [&](size_t, size_t i, const TorchSink& sink) {
      const MegatronTensor& tensor = chunk[i];
      std::vector<int32_t> values(static_cast<size_t>(tensor.shape[0] * num_columns(tensor.shape)),
                                  0);
      const bool is_first = tensor.name.ends_with("weight1");
      if (is_first || tensor.name.ends_with("weight2"))
        for (size_t at = 0; at < values.size(); ++at)
          values[at] = element(tensor.name["decoder.layers."s.size()] - '0', is_first,
                               static_cast<int64_t>(at));
      sink(std::as_bytes(std::span(values)));
    });
  }
  std::ofstream(folder.path() / kLatestFile) << "release";
  const MegatronSource read(folder.path(), config);
  int num_experts = 0;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    if (source.tensors()[i].name.find(".experts.") == std::string::npos) continue;
    ++num_experts;
    const uint64_t count = static_cast<uint64_t>(hidden * 2 * width);
    for (const auto& [begin, size] : {std::pair(uint64_t{0}, count), {count / 3, count / 2}})
      EXPECT_EQ(read_range(read, i, begin, size), read_range(source, i, begin, size))
          << source.tensors()[i].name;
  }
  EXPECT_EQ(num_experts, 4 * 4 * 3);
}

TEST(MegatronTest, NamesFoldersAsMegatronDoes) {
  MegatronLayout layout;
  EXPECT_EQ(rank_folder(layout, {}), "mp_rank_00");
  layout.ep = 2;
  EXPECT_EQ(rank_folder(layout, {.tp = 3, .tpe = 0, .ep = 1, .pp = 0}), "mp_rank_03_001");
  layout.pp = 16;
  EXPECT_EQ(rank_folder(layout, {.tp = 3, .tpe = 0, .ep = 1, .pp = 15}), "mp_rank_03_015_001");
}

TEST(MegatronTest, DescribesTheModelInItsArguments) {
  const ModelConfig config = deepseek_v3();
  MegatronLayout layout = layout_of(config);
  const TemporaryFolder folder("megatron");
  write_megatron(CountingSource(config), config, layout, {}, folder.path(), {});
  const TorchFile file(folder.path() / "release/mp_rank_00" / kMegatronFile);
  const PickleValue& args = file.attributes(*file.find("args"), "args");
  const auto find = [&](const char* name) { return *file.pickle().find(args, name); };
  EXPECT_EQ(find("num_layers").integer, 4);
  EXPECT_EQ(find("kv_lora_rank").integer, 4);
  EXPECT_EQ(find("moe_layer_freq").items.size(), 4u);
  EXPECT_EQ(find("moe_router_score_function").text, "softmax");
  EXPECT_EQ(find("params_dtype").text, "bfloat16");
  EXPECT_EQ(file.find("checkpoint_version")->number, 3.0);
  const PickleValue& model = *file.find("model");
  const std::string state = "decoder.layers.0.mlp.linear_fc1._extra_state";
  ASSERT_NE(file.pickle().find(model, state), nullptr);
  EXPECT_EQ(file.pickle().find(model, state)->kind, PickleValue::Kind::kNone);
}

TEST(MegatronTest, RefusesLayoutsThatDoNotFit) {
  const ModelConfig config = qwen3_moe();
  const auto message = [&](const std::function<void(MegatronLayout&)>& change) {
    MegatronLayout layout = layout_of(config);
    change(layout);
    return message_of([&] { check_layout(config, layout); });
  };
  EXPECT_EQ(message([](MegatronLayout& layout) { layout.tp = 4; }),
            "tensor-model-parallel-size (4) must divide the number of key-value heads (2)");
  EXPECT_EQ(message([](MegatronLayout& layout) { layout.ep = 3; }),
            "expert-model-parallel-size (3) must divide the number of experts (4)");
  EXPECT_EQ(message([](MegatronLayout& layout) { layout.tpe = 2; }),
            "tensor-model-parallel-for-expert (2) must divide tensor-model-parallel-size (1), "
            "for Megatron's file names do not tell such ranks apart");
  MegatronLayout dense = layout_of(llama());
  dense.tpe = 2;
  EXPECT_NE(message_of([&] { check_layout(llama(), dense); }), "no error");
  EXPECT_EQ(message([](MegatronLayout& layout) { layout.stage_layers = {3}; }),
            "hetero-pipeline-stages has 3 layers, the model 4");
  EXPECT_EQ(message([](MegatronLayout& layout) { layout.pp = 2; }),
            "hetero-pipeline-stages has 1 numbers for 2 pipeline stages");
}

TEST(MegatronTest, NamesWhatIsMissing) {
  const ModelConfig config = llama();
  const MegatronLayout layout = layout_of(config);
  const TemporaryFolder folder("megatron");
  CountingSource source(config);
  const auto write = [&] {
    return message_of([&] { write_megatron(source, config, layout, {}, folder.path(), {}); });
  };
  source.change()[0].shape = {3, 8};
  EXPECT_EQ(write(),
            "tensor lm_head.weight has the shape [3, 8], its config.json asks for [11, 8]");
  source.change()[0].name = "other";
  EXPECT_EQ(write(), "the model has no tensor lm_head.weight, which its config.json asks for");
  EXPECT_TRUE(fs::is_empty(folder.path()));
  source = CountingSource(config);
  source.change().push_back({"model.layers.4.enorm.weight", SafetensorsDtype::kI32, {8}});
  EXPECT_EQ(write_megatron(source, config, layout, {}, folder.path(), {}).left_out,
            std::vector<std::string>{"model.layers.4.enorm.weight"});
  EXPECT_EQ(write(), "save: " + folder.path().string() +
                         " is there already: name another folder, or remove it");
}

// What does not pass never gets its name.
TEST(MegatronTest, ChecksBeforeItAppears) {
  const ModelConfig config = llama();
  const TemporaryFolder folder("megatron");
  const fs::path save = folder.path() / "save";
  MegatronSettings settings;
  settings.check = [&](const fs::path& written, const MegatronReport& report) {
    EXPECT_EQ(report.num_files, 1);
    EXPECT_EQ(MegatronSource(written, config).tensors().size(),
              CountingSource(config).tensors().size());
    EXPECT_FALSE(fs::exists(save));
    throw InputError("other bits");
  };
  EXPECT_EQ(message_of([&] {
              write_megatron(CountingSource(config), config, layout_of(config), {}, save, settings);
            }),
            "other bits");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(MegatronTest, RefusesFoldersThatDoNotFit) {
  const ModelConfig config = qwen3_moe();
  MegatronLayout layout = layout_of(config);
  layout.tp = 2;
  const TemporaryFolder folder("megatron");
  write_megatron(CountingSource(config), config, layout, {}, folder.path(), {});
  const fs::path release = folder.path() / "release";
  const auto message = [&](const ModelConfig& read) {
    return message_of([&] { MegatronSource(folder.path(), read); });
  };
  EXPECT_EQ(message(config), "no error");
  ModelConfig other = config;
  other.num_layers = 5;
  EXPECT_EQ(message(other), release.string() + " holds 4 layers, its config.json tells 5");
  other = config;
  other.hidden_size = 16;
  const std::string first = (release / "mp_rank_00" / kMegatronFile).string();
  EXPECT_EQ(message(other), first +
                                ": embedding.word_embeddings.weight has the shape [6, 8], "
                                "config.json asks for [6, 16]");
  other = config;
  other.qk_norm = false;
  EXPECT_EQ(message(other),
            first +
                " holds decoder.layers.0.self_attention.k_layernorm.weight, which the model of "
                "config.json has not");
  fs::remove_all(release / "mp_rank_01");
  EXPECT_EQ(message(config), release.string() +
                                 " has 1 files for 2 tensor-parallel ranks (1 of experts), 1 "
                                 "pipeline ranks and 1 expert ranks");
  EXPECT_EQ(message_of([&] { MegatronSource(folder.path(), config, 7); }),
            (folder.path() / "iter_0000007").string() + " has no folder mp_rank_*");
}

}  // namespace
}  // namespace moetron
