#include "moetron/checkpoint/load_weights.h"

#include <gmock/gmock.h>
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/tensor_file.h"
#include "moetron/formats/safetensors_index.h"
#include "moetron/formats/safetensors_writer_test.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

using Tensors = std::map<std::string, at::Tensor>;

NamedSlice whole(const std::string& name, const at::Tensor& tensor) {
  return {name, tensor.sizes().vec(), std::vector<int64_t>(tensor.dim(), 0), tensor};
}

class LoadWeights : public testing::Test {
 protected:
  void write(const Tensors& tensors, const std::string& file = "model.safetensors") {
    SafetensorsWriter writer(folder_.path() / file, described(tensors));
    for (const SafetensorsEntry& entry : writer.tensors()) {
      const at::Tensor tensor = tensors.at(entry.name).contiguous();
      writer.write(entry.name,
                   {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
    }
    writer.commit();
  }

  static std::vector<SafetensorsTensor> described(const Tensors& tensors) {
    std::vector<SafetensorsTensor> all;
    for (const auto& [name, tensor] : tensors) {
      const auto dtype = tensor.scalar_type() == at::kByte ? SafetensorsDtype::kF8E4M3
                                                           : stored_dtype(tensor.scalar_type());
      all.push_back({name, dtype, tensor.sizes().vec()});
    }
    return all;
  }

  std::string refusal(const std::vector<NamedSlice>& slices) {
    try {
      load_weights(folder_.path(), slices);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }

  TemporaryFolder folder_{"load_weights_test"};
};

TEST_F(LoadWeights, ConvertsBetweenTheTypesOfWeights) {
  const at::Tensor values = at::randn({37, 5}) * 100;
  for (const at::ScalarType from : {at::kFloat, at::kBFloat16, at::kHalf}) {
    write({{"w", values.to(from)}});
    for (const at::ScalarType to : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor read = at::empty({37, 5}, to);
      EXPECT_EQ(load_weights(folder_.path(), {whole("w", read)}).num_tensors, 1);
      EXPECT_TRUE(at::equal(read, values.to(from).to(to))) << from << " to " << to;
    }
  }
}

// Of the release of DeepSeek-V3: 8 bits, with a scale for every block of 128 x 128.
TEST_F(LoadWeights, MultipliesEightBits) {
  const at::Tensor bits = at::randint(0, 0x7f, {130, 300}, at::kByte);  // finite numbers
  const at::Tensor scales = at::rand({2, 3}) + 0.5;
  write({{"w", bits}, {"w_scale_inv", scales}});
  const at::Tensor expected =
      bits.view(at::kFloat8_e4m3fn).to(at::kFloat) *
      scales.repeat_interleave(128, 0).slice(0, 0, 130).repeat_interleave(128, 1).slice(1, 0, 300);
  const at::Tensor all = at::empty({130, 300}), in_bf16 = at::empty({130, 300}, at::kBFloat16);
  const at::Tensor rows = at::empty({5, 300}), columns = at::empty({130, 40});
  const LoadReport report = load_weights(folder_.path(), {whole("w", all),
                                                          whole("w", in_bf16),
                                                          {"w", {130, 300}, {125, 0}, rows},
                                                          {"w", {130, 300}, {0, 100}, columns}});
  EXPECT_TRUE(report.unused.empty());
  EXPECT_TRUE(at::equal(all, expected));
  EXPECT_TRUE(at::equal(in_bf16, expected.to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(rows, expected.slice(0, 125)));
  EXPECT_TRUE(at::equal(columns, expected.slice(1, 100, 140)));
  write({{"w", bits}, {"w_scale_inv", at::ones({2, 2})}});
  EXPECT_THAT(
      refusal({whole("w", all)}),
      HasSubstr("w_scale_inv is F32 of shape [2, 2], but w of shape [130, 300] needs F32 of "
                "shape [2, 3]"));
}

TEST_F(LoadWeights, ReadsShards) {
  const Tensors first{{"a", at::randn(3)}}, second{{"b", at::randn(4)}};
  write(first, "model-00001-of-00002.safetensors");
  write(second, "model-00002-of-00002.safetensors");
  write_safetensors_index(
      folder_.path() / "model.safetensors.index.json",
      {28, {{"a", "model-00001-of-00002.safetensors"}, {"b", "model-00002-of-00002.safetensors"}}});
  const at::Tensor a = at::empty(3), b = at::empty(4);
  load_weights(folder_.path(), {whole("a", a), whole("b", b)});
  EXPECT_TRUE(at::equal(a, first.at("a")));
  EXPECT_TRUE(at::equal(b, second.at("b")));
  fs::remove(folder_.path() / "model-00002-of-00002.safetensors");
  EXPECT_THAT(refusal({whole("a", a)}), HasSubstr("model-00002-of-00002.safetensors"));
}

TEST_F(LoadWeights, ReadsStackedExperts) {
  const int64_t experts = 12, inner = 3, hidden = 4;
  const std::string prefix = "model.layers.1.mlp.experts.";
  const Tensors stored{{prefix + "gate_up_proj", at::randn({experts, 2 * inner, hidden})},
                       {prefix + "down_proj", at::randn({experts, hidden, inner})}};
  write(stored);
  const at::Tensor gate = at::empty({inner, hidden}), up = at::empty({inner, hidden});
  const at::Tensor down = at::empty({hidden, inner}), row = at::empty({1, hidden});
  const at::Tensor part_of_row = at::empty({1, 2}), columns = at::empty({hidden, 2});
  const LoadReport report = load_weights(
      folder_.path(), {whole(prefix + "11.gate_proj.weight", gate),
                       whole(prefix + "0.up_proj.weight", up),
                       whole(prefix + "5.down_proj.weight", down),
                       {prefix + "7.up_proj.weight", {inner, hidden}, {2, 0}, row},
                       {prefix + "8.up_proj.weight", {inner, hidden}, {1, 1}, part_of_row},
                       {prefix + "9.down_proj.weight", {hidden, inner}, {0, 1}, columns}});
  EXPECT_EQ(report.num_tensors, 6);
  EXPECT_TRUE(report.unused.empty());
  const at::Tensor& gate_up = stored.at(prefix + "gate_up_proj");
  EXPECT_TRUE(at::equal(gate, gate_up[11].slice(0, 0, inner)));
  EXPECT_TRUE(at::equal(up, gate_up[0].slice(0, inner)));
  EXPECT_TRUE(at::equal(down, stored.at(prefix + "down_proj")[5]));
  EXPECT_TRUE(at::equal(row, gate_up[7].slice(0, inner + 2)));
  EXPECT_TRUE(at::equal(part_of_row, gate_up[8].slice(0, inner + 1, inner + 2).slice(1, 1, 3)));
  EXPECT_TRUE(at::equal(columns, stored.at(prefix + "down_proj")[9].slice(1, 1)));
  EXPECT_THAT(refusal({whole(prefix + "12.gate_proj.weight", gate)}),
              HasSubstr("gate_up_proj has the shape [12, 6, 4], the model needs [13, 6, 4]"));
}

TEST_F(LoadWeights, NamesWhatDoesNotFit) {
  write({{"w", at::zeros({2, 3})}, {"fp8", at::zeros({2, 2}, at::kByte)}});
  const std::string file = (folder_.path() / "model.safetensors").string();
  EXPECT_EQ(refusal({whole("w", at::empty({3, 2}))}),
            file + ": tensor w has the shape [2, 3], the model needs [3, 2]");
  EXPECT_EQ(refusal({whole("v", at::empty(1))}),
            folder_.path().string() + " holds no tensor v, which the model needs");
  EXPECT_EQ(refusal({whole("fp8", at::empty({2, 2}))}),
            file + ": tensor fp8 is F8_E4M3, which cannot be read as F32");
}

TEST_F(LoadWeights, ListsUnusedTensorsButNotIgnorableOnes) {
  const at::Tensor one = at::ones(1);
  write({{"w", one},
         {"extra", one},
         {"model.layers.1.w", one},
         {"model.layers.2.w", one},
         {"model.layers.0.self_attn.rotary_emb.inv_freq", one},
         {"lm_head.weight", one}});
  const std::vector<NamedSlice> slices{whole("w", at::empty(1))};
  const auto unused_with = [&](const std::string& config) {
    write_file(folder_.path() / "config.json", config);
    testing::internal::CaptureStderr();
    const auto unused = load_weights(folder_.path(), slices).unused;
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                HasSubstr(concat("holds ", unused.size(), " tensors")));
    return unused;
  };
  EXPECT_THAT(unused_with("{\"num_hidden_layers\": 2, \"tie_word_embeddings\": true}"),
              ElementsAre("extra", "model.layers.1.w"));
  EXPECT_THAT(unused_with("{\"num_hidden_layers\": 1, \"tie_word_embeddings\": false}"),
              ElementsAre("extra", "lm_head.weight"));
}

TEST_F(LoadWeights, RefusesATiedModelWithAHeadOfItsOwn) {
  const std::string embedding = "model.embed_tokens.weight";
  const at::Tensor values = at::randn({4, 2});
  const std::vector<NamedSlice> slices{whole(embedding, at::empty({4, 2}))};
  const auto refused_with = [&](const at::Tensor& head, const std::string& config) {
    write({{embedding, values}, {"lm_head.weight", head}});
    write_file(folder_.path() / "config.json", config);
    return refusal(slices);
  };
  const std::string tied = "{\"tie_word_embeddings\": true}";
  EXPECT_EQ(refused_with(values, tied), "no error");
  EXPECT_THAT(refused_with(values + 1, tied),
              AllOf(HasSubstr("lm_head.weight"), HasSubstr(embedding)));
  EXPECT_THAT(refused_with(values.to(at::kBFloat16), tied), HasSubstr("lm_head.weight"));
}

TEST_F(LoadWeights, RefusesTwoModelsInOneFolder) {
  const at::Tensor one = at::ones(1), two = at::full(1, 2);
  write({{"w", one}});
  const at::Tensor read = at::empty(1);
  const fs::path index = folder_.path() / "model.safetensors.index.json";
  write_safetensors_index(index, {4, {{"w", "model.safetensors"}}});
  EXPECT_EQ(refusal({whole("w", read)}), "no error");  // both say the same
  write({{"w", two}}, "model-00001-of-00001.safetensors");
  write_safetensors_index(index, {4, {{"w", "model-00001-of-00001.safetensors"}}});
  EXPECT_THAT(refusal({whole("w", read)}), AllOf(HasSubstr("model.safetensors and the shards of "),
                                                 HasSubstr("model.safetensors.index.json")));
}

TEST_F(LoadWeights, RefusesOtherFolders) {
  EXPECT_THAT(refusal({}), HasSubstr("holds neither model.safetensors nor"));
  write_file(folder_.path() / "model.safetensors", "not one");
  EXPECT_THAT(refusal({}), HasSubstr("model.safetensors"));
  try {
    load_weights(folder_.path() / "nowhere", {});
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("nowhere is no folder"));
  }
}

}  // namespace
}  // namespace moetron
