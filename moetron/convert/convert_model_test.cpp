#include "moetron/convert/convert_model.h"

#include <cmath>
#include <gmock/gmock.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/arch/arch_test_data.h"
#include "moetron/arch/inventory.h"
#include "moetron/base/error.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/convert/fp8_source.h"
#include "moetron/convert/memory_source_test.h"
#include "moetron/convert/model_source.h"
#include "moetron/convert/typed_source.h"
#include "moetron/convert/verify_copy.h"
#include "moetron/formats/fp8_blocks.h"
#include "moetron/formats/manifest.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using enum SafetensorsDtype;

constexpr char kMatrix[] = "model.layers.0.mlp.gate_proj.weight";
constexpr char kBias[] = "model.layers.0.mlp.gate.e_score_correction_bias";
constexpr char kConfig[] = R"({"model_type": "x", "torch_dtype": "float32", "hidden_size": 300})";

std::vector<float> waves(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(i) * 0.7F);
  return values;
}

MemorySource small_model() {
  MemorySource model;
  model.add("model.embed_tokens.weight", kF32, {7, 300}, waves(7 * 300));
  model.add(kMatrix, kF32, {130, 300}, waves(130 * 300));
  model.add("model.layers.0.mlp.gate.weight", kF16, {4, 300}, waves(4 * 300));
  model.add(kBias, kF32, {4}, {0.1F, 0.2F, 0.3F, 0.4F});
  model.add("model.norm.weight", kBF16, {300}, waves(300));
  model.add("empty", kF32, {0, 3}, {});
  model.add_bytes({"counter", kI64, {2}}, std::vector<std::byte>(16, std::byte{3}));
  return model;
}

ConvertReport convert_hf_model(const fs::path& load, const fs::path& save,
                               const ConvertSettings& settings) {
  return write_hf_model(open_hf_model(load).content(), save, settings);
}

class ConvertModel : public testing::Test {
 protected:
  std::string refusal(const ConvertSettings& settings = {}) {
    try {
      convert_hf_model(in(), out(), settings);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  fs::path in() const { return folder_.path() / "in"; }
  fs::path out() const { return folder_.path() / "deeper" / "out"; }
  // What the conversion left beside what it was given.
  bool nothing_is_left() const {
    return !fs::exists(out()) &&
           (!fs::exists(out().parent_path()) || fs::is_empty(out().parent_path()));
  }

  TemporaryFolder folder_{"convert_model_test"};
};

TEST_F(ConvertModel, KeepsEveryBitInOtherShards) {
  const MemorySource model = small_model();
  model.write(in(), kConfig);
  write_file(in() / "tokenizer.json", "{}");
  uint64_t calls = 0, last = 0;
  const ConvertSettings settings{.shard_bytes = 10'000,
                                 .num_threads = 3,
                                 .verify = true,
                                 .progress = [&](const char*, uint64_t done, uint64_t total) {
                                   ++calls;
                                   last = total - done;
                                 }};
  const ConvertReport report = convert_hf_model(in(), out(), settings);
  EXPECT_EQ(report.num_tensors, 7U);
  EXPECT_EQ(report.num_files, 4);  // the matrix alone is more than a file takes
  EXPECT_GE(calls, 6U);
  EXPECT_EQ(last, 0U);
  const ModelSource result(out());
  verify_copy(model, result, 1);
  EXPECT_EQ(read_safetensors_index(out() / kIndexFile).total_size, report.bytes);
  EXPECT_EQ(read_file(out() / "tokenizer.json"), "{}");
  EXPECT_EQ(read_json(out() / "config.json"), parse_json(kConfig, "config"));
  verify_manifest(out());
  EXPECT_EQ(read_manifest(out()).size(), 7U);
  EXPECT_EQ(std::distance(fs::directory_iterator(out().parent_path()), {}), 1);
}

TEST_F(ConvertModel, RoundsToTheTypeThatIsAsked) {
  small_model().write(in(), kConfig);
  convert_hf_model(in(), out(), {.dtype = WeightDtype::kBf16, .verify = true});
  const ModelSource result(out());
  for (const SafetensorsTensor& tensor : result.tensors()) {
    const bool stays = tensor.name == kBias || tensor.name == "counter";
    EXPECT_EQ(tensor.dtype == kBF16, !stays) << tensor.name;
  }
  EXPECT_EQ(read_json(out() / "config.json")["torch_dtype"], "bfloat16");
  std::vector<std::byte> expected(130 * 300 * 2), found(expected.size());
  narrow(waves(130 * 300), kBF16, expected);
  result.read(find_tensor(result, kMatrix), 0, 130 * 300, found);
  EXPECT_EQ(found, expected);
}

TEST_F(ConvertModel, GoesToEightBitsAndBack) {
  small_model().write(in(), kConfig);
  convert_hf_model(in(), folder_.path() / "fp8", {.dtype = WeightDtype::kFp8, .verify = true});
  const ModelSource stored(folder_.path() / "fp8");
  EXPECT_EQ(stored.tensors().at(find_tensor(stored, kMatrix)).dtype, kF8E4M3);
  const size_t scale = find_tensor(stored, std::string(kMatrix) + "_scale_inv");
  EXPECT_EQ(stored.tensors().at(scale).shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(stored.tensors().size(), 8U);  // nothing else is in 8 bits
  EXPECT_EQ(read_json(folder_.path() / "fp8/config.json")["quantization_config"]["quant_method"],
            "fp8");
  // Once more is a copy.
  convert_hf_model(folder_.path() / "fp8", folder_.path() / "again", {.dtype = WeightDtype::kFp8});
  verify_copy(stored, ModelSource(folder_.path() / "again"), 1);

  convert_hf_model(folder_.path() / "fp8", out(), {.dtype = WeightDtype::kFp32, .verify = true});
  const Json config = read_json(out() / "config.json");
  EXPECT_FALSE(config.contains("quantization_config"));
  const std::vector<float> wanted = waves(130 * 300);
  const std::vector<float> found = values_of(ModelSource(out()), kMatrix);
  for (size_t i = 0; i < wanted.size(); ++i)
    ASSERT_NEAR(found[i], wanted[i], std::max(std::abs(wanted[i]) / 16, 0x1.0p-10F / 448) * 1.001F);
}

// A stretch is the same wherever it begins, so that blocks may cut a tensor anywhere.
TEST(Fp8Target, GivesAnyStretch) {
  const MemorySource model = small_model();
  const Fp8Target target(model);
  for (const SafetensorsTensor& tensor : target.tensors()) {
    if (tensor.dtype != kF8E4M3 && !tensor.name.ends_with(kScaleSuffix)) continue;
    const size_t index = find_tensor(target, tensor.name);
    const auto count = static_cast<uint64_t>(tensor.shape[0] * tensor.shape[1]);
    const auto item_bytes = static_cast<uint64_t>(dtype_bits(tensor.dtype) / 8);
    std::vector<std::byte> whole(count * item_bytes);
    target.read(index, 0, count, whole);
    for (uint64_t begin = 0; begin < count; begin += 1 + count / 7) {
      std::vector<std::byte> part(std::min<uint64_t>(count - begin, 500) * item_bytes);
      target.read(index, begin, part.size() / item_bytes, part);
      EXPECT_TRUE(std::equal(part.begin(), part.end(),
                             whole.begin() + static_cast<std::ptrdiff_t>(begin * item_bytes)));
    }
  }
}

// The release holds 91991 tensors, of scales among them.
TEST(Fp8Target, StoresWhatDeepseekStoresInEightBits) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  size_t count = 0;
  for (const TensorInfo& tensor : tensor_inventory(
           read_model_config(published_config("deepseek-ai--DeepSeek-V3"), "config.json"),
           MtpTensors::kInclude))
    count += is_stored_in_8_bits({tensor.name, kBF16, tensor.shape}) ? 2 : 1;
  EXPECT_EQ(count, 91991U);
}

TEST_F(ConvertModel, RefusesBrokenScales) {
  MemorySource model;
  model.add("w", kF8E4M3, {129, 3}, std::vector<float>(129 * 3, 1));
  model.write(in(), kConfig);
  EXPECT_EQ(refusal(), "no error");  // a copy does not ask what it means
  fs::remove_all(out());
  model.add("w_scale_inv", kF32, {1, 1}, {1});
  model.write(in(), kConfig);
  EXPECT_THAT(refusal({.dtype = WeightDtype::kBf16}),
              HasSubstr("w_scale_inv is F32 of shape [1, 1], but w"));
  MemorySource lone;
  lone.add("w_scale_inv", kF32, {1, 1}, {1});
  lone.write(in(), kConfig);
  EXPECT_THAT(refusal({.dtype = WeightDtype::kBf16}), HasSubstr("w_scale_inv has no w beside it"));
  MemorySource other;
  other.add("v", kF8E4M3, {1, 1}, {1});
  other.add("w", kF8E4M3, {1, 1}, {1});
  other.add("w_scale_inv", kF32, {1, 1}, {1});
  other.write(in(), kConfig);
  EXPECT_THAT(refusal({.dtype = WeightDtype::kBf16}),
              HasSubstr("v is F8_E4M3, but has no v_scale_inv"));
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(ConvertModel, AFailureLeavesNothing) {
  MemorySource model = small_model();
  model.add("model.layers.1.mlp.up_proj.weight", kF32, {1, 2}, {1, std::nanf("")});
  model.write(in(), kConfig);
  EXPECT_THAT(refusal({.dtype = WeightDtype::kFp8, .num_threads = 4}),
              HasSubstr("model.layers.1.mlp.up_proj.weight holds a number that is not finite"));
  EXPECT_TRUE(nothing_is_left());
}

TEST_F(ConvertModel, NeverReplacesWhatIsThere) {
  small_model().write(in(), kConfig);
  fs::create_directories(out());
  write_file(out() / "mine", "");
  EXPECT_THAT(refusal(), HasSubstr("is there already"));
  fs::remove(out() / "mine");
  fs::create_directory_symlink(folder_.path(), folder_.path() / "link");
  EXPECT_THROW(convert_hf_model(in(), folder_.path() / "link", {}), ConfigError);
  EXPECT_EQ(refusal(), "no error");  // an empty folder may be taken
  EXPECT_TRUE(fs::exists(out() / "manifest.json"));
}

TEST_F(ConvertModel, RefusesAnotherQuantization) {
  small_model().write(in(), R"({"quantization_config": {"quant_method": "gptq"}})");
  EXPECT_THAT(refusal({.dtype = WeightDtype::kBf16}),
              HasSubstr("quantization_config ({\"quant_method\":\"gptq\"})"));
  EXPECT_EQ(refusal(), "no error");  // a copy keeps it
}

TEST(VerifyCopy, TellsTheTensorThatDiffers) {
  const MemorySource model = small_model();
  MemorySource copy = small_model();
  copy.bytes(kMatrix)[4242] ^= std::byte{1};
  try {
    verify_copy(model, copy, 2);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr(kMatrix));
  }
}

}  // namespace
}  // namespace moetron
