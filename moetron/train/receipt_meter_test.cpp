// What a hash of a tensor tells, and of which tensors a receipt is made. That it is the same in
// every layout, tests/layouts_test.cpp and tests/pipelines_test.cpp show.
#include "moetron/train/receipt_meter.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <set>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "moetron/arch/config_reader.h"
#include "moetron/base/json.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/data/pattern_dataset.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"
#include "moetron/train/train_step.h"

namespace moetron {
namespace {

NamedSlice whole(const at::Tensor& tensor) {
  const std::vector<int64_t> begin(static_cast<size_t>(tensor.dim()), 0);
  return {"w", tensor.sizes().vec(), begin, tensor};
}

NamedSlice part(const at::Tensor& tensor, const std::vector<int64_t>& begin,
                const std::vector<int64_t>& sizes) {
  at::Tensor view = tensor;
  for (size_t dim = 0; dim < sizes.size(); ++dim)
    view = view.narrow(static_cast<int64_t>(dim), begin[dim], sizes[dim]);
  return {"w", tensor.sizes().vec(), begin, view};
}

TEST(SliceHash, AddsUpElementByElement) {
  const at::Tensor tensor = at::arange(24, at::kFloat).view({2, 3, 4});
  uint64_t sum = 0;
  for (uint64_t i = 0; i < 24; ++i) {
    const auto value = static_cast<float>(i);
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    sum += element_hash(i, bits);
  }
  EXPECT_EQ(slice_hash(whole(tensor)), sum);
  EXPECT_EQ(slice_hash(part(tensor, {0, 0, 0}, {2, 1, 3})) +
                slice_hash(part(tensor, {0, 1, 0}, {2, 2, 3})) +
                slice_hash(part(tensor, {0, 0, 3}, {2, 3, 1})),
            sum);
  EXPECT_EQ(slice_hash(part(tensor, {0, 0, 0}, {2, 0, 4})), 0U);
}

// Large enough for several threads, which divide it within rows.
TEST(SliceHash, IsTheSameOnAnyNumberOfThreads) {
  const at::Tensor tensor = at::linspace(-1, 1, 70'000 * 3).view({3, 70'000});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const uint64_t alone = slice_hash(whole(tensor));
  at::set_num_threads(4);
  EXPECT_EQ(slice_hash(whole(tensor)), alone);
  at::set_num_threads(threads);
}

TEST(SliceHash, SeesOneBitAndTwoElementsSwapped) {
  const at::Tensor tensor = at::arange(12, at::kFloat).view({3, 4});
  const uint64_t before = slice_hash(whole(tensor));
  at::Tensor flipped = tensor.clone();
  flipped[1][2] = std::nextafter(flipped[1][2].item<float>(), 100.0f);
  EXPECT_NE(slice_hash(whole(flipped)), before);
  at::Tensor swapped = tensor.clone();
  swapped[0][1] = tensor[2][3];
  swapped[2][3] = tensor[0][1];
  EXPECT_NE(slice_hash(whole(swapped)), before);
  EXPECT_NE(slice_hash(whole(at::zeros({3}))), slice_hash(whole(-at::zeros({3}))));
  // The bits of the number, whatever its type.
  EXPECT_EQ(slice_hash(whole(tensor.to(at::kBFloat16))), before);
}

constexpr const char* kModel = R"({"model_type": "qwen3_moe", "vocab_size": 61, "hidden_size": 32,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
  "intermediate_size": 48, "moe_intermediate_size": 16, "num_experts": 4,
  "num_experts_per_tok": 2, "norm_topk_prob": true, "decoder_sparse_step": 1,
  "mlp_only_layers": [], "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true,
  "initializer_range": 0.1})";

// The receipt of the first step, after `prepare` of fresh parameters.
BitReceipt first_receipt(const std::function<void(Parameter&)>& prepare,
                         at::ScalarType dtype = at::kFloat,
                         std::map<std::string, at::Tensor>* masters = nullptr) {
  BitReceipt receipt;
  run_ranks(1, [&](Communicator& world) {
    const at::NoGradGuard no_grad;
    Mesh mesh(world, parallel_sizes(1, 1, 1, 1, 1));
    Model model(read_model_config(parse_json(kModel, "model"), "model"),
                {.options = at::TensorOptions(dtype), .mesh = &mesh});
    model.initialize(11);
    for (Parameter* parameter : model.parameters()) prepare(*parameter);
    TrainStep train_step(model, mesh, {.adamw = {.eps = 1e-3}});
    train_step.optimizer().reset_masters();
    const StepBatch batch = load_step_batch(PatternDataset(), 0, {1, 4}, mesh, /*training=*/true);
    // Without an update, so that a change of one parameter stays one.
    EXPECT_FALSE(train_step.run(batch, 1, 0).receipt);
    receipt = *train_step.run(batch, 2, 0, /*with_receipt=*/true).receipt;
    if (masters == nullptr) return;
    for (const NamedSlice& state : train_step.optimizer().states()) {
      if (state.name.starts_with("master.")) (*masters)[state.name.substr(7)] = state.view.clone();
    }
  });
  return receipt;
}

// The parameters whose hashes differ.
std::vector<std::string> changed(const BitReceipt& a, const BitReceipt& b) {
  EXPECT_EQ(a.parameters.size(), b.parameters.size());
  std::vector<std::string> names;
  for (size_t i = 0; i < a.parameters.size(); ++i) {
    if (a.parameters[i] != b.parameters[i]) names.push_back(a.parameters[i].name);
  }
  return names;
}

TEST(Receipt, OfATensorThatChangesAlone) {
  const BitReceipt plain = first_receipt([](Parameter&) {});
  const std::string name = "model.layers.1.self_attn.o_proj.weight";
  const BitReceipt flipped = first_receipt([&](Parameter& parameter) {
    if (parameter.label() != name) return;
    at::Tensor element = parameter.value()[3][5];
    element.fill_(std::nextafter(element.item<float>(), 100.0f));
  });
  EXPECT_EQ(changed(plain, flipped), std::vector{name});
  const BitReceipt swapped = first_receipt([&](Parameter& parameter) {
    if (parameter.label() != name) return;
    const at::Tensor row = parameter.value()[3].clone();
    parameter.value()[3].copy_(parameter.value()[4]);
    parameter.value()[4].copy_(row);
  });
  EXPECT_EQ(changed(plain, swapped), std::vector{name});
  EXPECT_EQ(first_difference(plain, first_receipt([](Parameter&) {})), "");
}

TEST(Receipt, HasEachTensorOnceByName) {
  const BitReceipt receipt = first_receipt([](Parameter& parameter) {
    if (parameter.label().find("layers.0.") != std::string::npos) parameter.freeze();
  });
  ASSERT_GT(receipt.gradients.size(), 10U);
  std::set<std::string> names;
  for (const NamedHash& entry : receipt.parameters) EXPECT_TRUE(names.insert(entry.name).second);
  EXPECT_EQ(receipt.parameters.front().name, "model.embed_tokens.weight");
  EXPECT_EQ(names.count("lm_head.weight"), 0U);  // tied
  EXPECT_EQ(names.count("model.layers.0.mlp.experts.3.down_proj.weight"), 1U);
  for (const NamedHash& entry : receipt.gradients)
    EXPECT_EQ(entry.name.find("layers.0."), std::string::npos) << entry.name;
}

// Beside bf16 values the masters are what is trained.
TEST(Receipt, IsThatOfTheMasters) {
  std::map<std::string, at::Tensor> masters;
  const BitReceipt receipt = first_receipt([](Parameter&) {}, at::kBFloat16, &masters);
  ASSERT_EQ(receipt.parameters.size(), masters.size());
  for (const NamedHash& entry : receipt.parameters)
    EXPECT_EQ(entry.hash, slice_hash(whole(masters.at(entry.name)))) << entry.name;
}

}  // namespace
}  // namespace moetron
