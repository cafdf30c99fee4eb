// Directories written by transformers are read as it means them, and it reads ours.
#include <cstdlib>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/load_weights.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

int run_oracle(const std::string& arguments) {
  const std::string command = ".venv/bin/python moetron/checkpoint/checkpoint_oracle.py ";
  return std::system((command + arguments).c_str());
}

// Its terms, of which the sum says that every value is there and in its place.
at::Tensor weighted(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kDouble).flatten();
  return values * at::arange(values.numel()).remainder(7).add(1);
}

// Every tensor of sums.json, loaded from the folder beside it and compared with its sum.
std::vector<NamedSlice> load_and_compare(const fs::path& folder, at::ScalarType dtype) {
  std::vector<NamedSlice> slices;
  const Json sums = read_json(folder / "sums.json");
  for (const auto& [name, expected] : sums.items()) {
    const auto shape = expected["shape"].get<std::vector<int64_t>>();
    const bool is_bias = name.ends_with("e_score_correction_bias");
    slices.push_back({name, shape, std::vector<int64_t>(shape.size(), 0),
                      at::empty(shape, is_bias ? at::kFloat : dtype)});
  }
  const LoadReport report = load_weights(folder, slices);
  EXPECT_EQ(report.num_tensors, static_cast<int64_t>(slices.size()));
  EXPECT_TRUE(report.unused.empty());
  for (const NamedSlice& slice : slices) {
    const double want = sums[slice.name]["sum"].get<double>();
    const at::Tensor terms = weighted(slice.view);
    EXPECT_NEAR(terms.sum().item<double>(), want, 1e-12 * terms.abs().sum().item<double>())
        << slice.name;
  }
  return slices;
}

TEST(CheckpointOracle, TransformersAndMoetronReadEachOther) {
  if (!fs::exists(".venv/bin/python")) GTEST_SKIP() << "no .venv";
  TemporaryFolder folder("checkpoint_oracle");
  ASSERT_EQ(run_oracle(concat("make ", folder.path().string())), 0);
  load_and_compare(folder.path() / "stacked", at::kFloat);
  for (const std::string name : {"qwen3", "deepseek_v3"}) {
    const fs::path source = folder.path() / name;
    CheckpointContent content;
    content.weights = load_and_compare(source, name == "qwen3" ? at::kBFloat16 : at::kFloat);
    content.states = {{"exp_avg.model.norm.weight", {16}, {0}, at::randn(16)},
                      {"exp_avg_sq.model.norm.weight", {16}, {0}, at::rand(16)}};
    content.config = read_file(source / "config.json");
    content.trainer = "{}\n";
    const fs::path copy = save_checkpoint(folder.path() / "save" / name, 1, content, nullptr);
    EXPECT_EQ(run_oracle(concat("check ", source.string(), " ", copy.string())), 0) << name;
  }
}

}  // namespace
}  // namespace moetron
