#include "moetron/checkpoint/checkpoint.h"

#include <cstdlib>
#include <fstream>
#include <gmock/gmock.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/formats/safetensors.h"
#include "moetron/formats/safetensors_writer_test.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Checkpoint : public testing::Test {
 protected:
  TemporaryFolder folder_{"checkpoint_test"};
  fs::path save_ = folder_.path() / "save";
};

// What `work` says when it fails in the way it should.
template <class ErrorType, class Work>
std::string message_of(Work work) {
  try {
    work();
  } catch (const ErrorType& error) {
    return error.what();
  }
  return "no error";
}

void flip_byte(const fs::path& path, int64_t place) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(place);
  const int byte = file.get();
  file.seekp(place);
  file.put(static_cast<char>(byte ^ 1));
}

TEST_F(Checkpoint, RoundTripKeepsEveryBit) {
  TinyModel saved(1), loaded(2);
  const fs::path folder = save_checkpoint(save_, 100, saved.content(), nullptr);
  EXPECT_EQ(folder, save_ / "step_0000100");
  const auto found = find_latest(save_, nullptr);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 100);
  const Json trainer = load_checkpoint(found->folder, loaded.weights(), loaded.states());
  EXPECT_EQ(trainer["step"], 100);
  EXPECT_TRUE(loaded.equals(saved));
  EXPECT_EQ(read_json(folder / "config.json")["model_type"], "qwen3");
}

TEST_F(Checkpoint, ShardsAreSplitAndReadBack) {
  TinyModel saved(1), loaded(2);
  const fs::path folder =
      save_checkpoint(save_, 5, saved.content(), nullptr, {.shard_bytes = 4000});
  EXPECT_FALSE(fs::exists(folder / "model.safetensors"));
  EXPECT_TRUE(fs::exists(folder / "model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(folder / "model-00002-of-00003.safetensors"));
  load_checkpoint(find_latest(save_, nullptr)->folder, loaded.weights(), loaded.states());
  EXPECT_TRUE(loaded.equals(saved));
}

TEST_F(Checkpoint, AnotherLayoutReadsIt) {
  // The saver holds q and k fused, and "wide" as two column halves, one stored transposed.
  const at::Tensor fused = at::randn({7, 3}), left = at::randn({4, 5}), right = at::randn({6, 4});
  CheckpointContent content = TinyModel(1).content();
  content.weights = {{"q", {4, 3}, {0, 0}, fused.slice(0, 0, 4)},
                     {"k", {3, 3}, {0, 0}, fused.slice(0, 4, 7)},
                     {"wide", {4, 11}, {0, 5}, right.t()},
                     {"wide", {4, 11}, {0, 0}, left}};
  const fs::path folder = save_checkpoint(save_, 1, content, nullptr);
  const at::Tensor wide = at::empty({4, 11}), middle = at::empty({2, 4}), k = at::empty({3, 3});
  load_some_weights(folder, {{"wide", {4, 11}, {0, 0}, wide},
                             {"wide", {4, 11}, {1, 3}, middle},
                             {"k", {3, 3}, {0, 0}, k}});
  EXPECT_TRUE(at::equal(wide, at::cat({left, right.t()}, 1)));
  EXPECT_TRUE(at::equal(middle, wide.slice(0, 1, 3).slice(1, 3, 7)));
  EXPECT_TRUE(at::equal(k, fused.slice(0, 4, 7)));
}

TEST_F(Checkpoint, TensorsLargerThanABlockAreWhole) {
  CheckpointContent content = TinyModel(1).content();
  const at::Tensor big = at::arange(9'000'000, at::kInt).view(at::kFloat).view({3000, 3000});
  const at::Tensor turned = big.t().contiguous();
  content.weights = {{"big", {3000, 3000}, {0, 0}, turned.t()}, {"after", {3}, {0}, at::ones(3)}};
  save_checkpoint(save_, 1, content, nullptr);
  const at::Tensor read = at::empty({3000, 3000}), after = at::zeros(3);
  load_weights(find_latest(save_, nullptr)->folder,
               {{"big", {3000, 3000}, {0, 0}, read}, {"after", {3}, {0}, after}});
  EXPECT_TRUE(at::equal(read.view(at::kInt), big.view(at::kInt)));
  EXPECT_TRUE(at::equal(after, at::ones(3)));
}

TEST_F(Checkpoint, PrecisionSurvivesAChangeOfType) {
  TinyModel narrow(1, at::kBFloat16), wide(2, at::kFloat), narrow_again(3, at::kBFloat16);
  narrow.train(3);
  const fs::path first = save_checkpoint(save_, 1, narrow.content(), nullptr);
  load_checkpoint(first, wide.weights(), wide.states());
  EXPECT_TRUE(at::equal(wide.state("exp_avg.model.norm.weight"),
                        narrow.state("exp_avg.model.norm.weight")));
  EXPECT_TRUE(
      at::equal(wide.weight("model.norm.weight"), narrow.state("master.model.norm.weight")));
  const fs::path second = save_checkpoint(save_, 2, wide.content(), nullptr);
  load_checkpoint(second, narrow_again.weights(), narrow_again.states());
  EXPECT_TRUE(narrow_again.equals(narrow));
}

TEST_F(Checkpoint, TheNewestSoundOneIsFound) {
  EXPECT_FALSE(find_latest(save_, nullptr));
  TinyModel model(1);
  for (const int step : {1, 2, 3, 4, 5, 10}) save_checkpoint(save_, step, model.content(), nullptr);
  EXPECT_EQ(find_latest(save_, nullptr)->step, 10);
  const auto latest_after = [&](const char* reason) {
    testing::internal::CaptureStderr();
    const int64_t step = find_latest(save_, nullptr)->step;
    EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(reason));
    return step;
  };
  flip_byte(save_ / "step_0000010/model.safetensors", 3000);
  EXPECT_EQ(latest_after("step_0000010/model.safetensors is damaged in block 0"), 5);
  fs::remove(save_ / "step_0000005/state/optimizer.safetensors");
  EXPECT_EQ(latest_after("step_0000005/state/optimizer.safetensors"), 4);
  fs::resize_file(save_ / "step_0000004/config.json", 3);
  EXPECT_EQ(latest_after("step_0000004/config.json has 3 bytes"), 3);
  flip_byte(save_ / "step_0000003/manifest.json", 40);
  EXPECT_EQ(latest_after("step_0000003/manifest.json"), 2);
  fs::remove(save_ / "step_0000002/manifest.json");
  EXPECT_EQ(latest_after("step_0000002 is no checkpoint"), 1);
  fs::create_directories(save_ / "step_99");  // not a name that we give
  EXPECT_EQ(latest_after("step_0000002"), 1);
}

TEST_F(Checkpoint, ADamagedFolderCannotBeLoaded) {
  TinyModel model(1);
  const fs::path folder = save_checkpoint(save_, 1, model.content(), nullptr);
  const auto load = [&] { load_checkpoint(folder, model.weights(), model.states()); };
  fs::resize_file(folder / "state/optimizer.safetensors", 100);
  EXPECT_THAT(message_of<InputError>(load), HasSubstr("optimizer.safetensors has 100 bytes"));
  fs::remove(folder / "manifest.json");
  EXPECT_THAT(message_of<InputError>(load), HasSubstr("is no checkpoint"));
  fs::remove_all(folder);
  EXPECT_THAT(message_of<InputError>(load), HasSubstr("is no folder"));
}

TEST_F(Checkpoint, WrongStatesAreNamed) {
  TinyModel model(1);
  const fs::path folder = save_checkpoint(save_, 1, model.content(), nullptr);
  const auto load = [&](const std::string& name, int64_t size) {
    return message_of<InputError>([&] {
      load_checkpoint(folder, {}, {{name, {size}, {0}, at::zeros(size)}});
    });
  };
  EXPECT_THAT(load("exp_avg.model.norm.weight", 9),
              HasSubstr("exp_avg.model.norm.weight has the shape [8], the run needs [9]"));
  EXPECT_THAT(load("exp_avg.nobody", 8), HasSubstr("exp_avg.nobody"));
}

TEST_F(Checkpoint, TheSameStepIsReplaced) {
  TinyModel first(1), second(2), loaded(3);
  save_checkpoint(save_, 7, first.content(), nullptr);
  save_checkpoint(save_, 7, second.content(), nullptr);
  load_checkpoint(find_latest(save_, nullptr)->folder, loaded.weights(), loaded.states());
  EXPECT_TRUE(loaded.equals(second));
  EXPECT_EQ(std::distance(fs::directory_iterator(save_), fs::directory_iterator()), 1);
}

TEST_F(Checkpoint, TheFilesOfTheModelComeAlong) {
  const fs::path from = folder_.path() / "model";
  fs::create_directories(from / "additional_chat_templates");
  const std::map<std::string, std::string> kept = {
      {"tokenizer.json", "{}"},
      {"special_tokens_map.json", "{\"eos_token\": \"</s>\"}"},
      {"chat_template.jinja", "{{ messages }}"},
      {"additional_chat_templates/tools.jinja", "{{ tools }}"},
      {"qwen.tiktoken", "aa 0"},
      {"generation_config.json", "{\"eos_token_id\": [1, 2], \"top_k\": 20}"},
      {"modeling_x.py", "from .parts import *"},
      {"parts.py", "pass"}};
  for (const auto& [name, text] : kept) write_file(from / name, text);
  write_file(from / "weights.bin", "not a tokenizer's");
  write_file(from / "config.json", "{\"auto_map\": {\"AutoModel\": \"modeling_x.Model\"}}");
  CheckpointContent content = TinyModel(1).content();
  content.companions = read_tokenizer_files(from);
  add_companions(content.companions, read_model_companions(from));
  fs::remove_all(from);  // the checkpoint needs it no more
  const fs::path folder = save_checkpoint(save_, 1, content, nullptr);
  for (const auto& [name, text] : kept) EXPECT_EQ(read_file(folder / name), text) << name;
  EXPECT_FALSE(fs::exists(folder / "weights.bin"));
  EXPECT_EQ(find_latest(save_, nullptr)->step, 1);
}

TEST_F(Checkpoint, CodeThatIsNotThereIsNotNamed) {
  const auto dropped = [](const char* config) {
    Json json = parse_json(config, "config");
    drop_missing_code(json, {{"here.py", ""}});
    return json.dump();
  };
  EXPECT_EQ(dropped(R"({"a":1,"auto_map":{"M":"gone.X"},"b":2})"), R"({"a":1,"b":2})");
  EXPECT_EQ(dropped(R"({"auto_map":{"M":"here.X","C":"gone.Y"}})"),
            R"({"auto_map":{"M":"here.X"}})");
  const std::string fine = R"({"auto_map":{"M":"who/what--gone.X","T":["here.X",null]}})";
  EXPECT_EQ(dropped(fine.c_str()), fine);
  EXPECT_EQ(dropped(R"({"auto_map":{"T":["here.X","gone.Y"]}})"), "{}");
  EXPECT_EQ(dropped("{}"), "{}");
}

TEST_F(Checkpoint, AFullOrImpossiblePlaceIsRefusedAndOldOnesStay) {
  TinyModel model(1);
  save_checkpoint(save_, 1, model.content(), nullptr);
  CheckpointContent huge = model.content();
  const int64_t size = int64_t{1} << 44;
  huge.weights = {{"huge", {size}, {0}, at::zeros(1).expand(size)}};
  const auto save_huge = [&] { save_checkpoint(save_, 2, huge, nullptr); };
  EXPECT_THAT(message_of<ConfigError>(save_huge), HasSubstr("the checkpoint needs 70368744"));
  write_file(folder_.path() / "file", "in the way");
  const auto save_below_file = [&] {
    save_checkpoint(folder_.path() / "file" / "save", 2, model.content(), nullptr);
  };
  EXPECT_THAT(message_of<ConfigError>(save_below_file), HasSubstr("Not a directory"));
  EXPECT_EQ(find_latest(save_, nullptr)->step, 1);
  EXPECT_EQ(std::distance(fs::directory_iterator(save_), fs::directory_iterator()), 1);
}

TEST_F(Checkpoint, SlicesThatDoNotAddUpAreOurMistake) {
  CheckpointContent content = TinyModel(1).content();
  content.weights = {{"half", {4, 2}, {0, 0}, at::zeros({2, 2})}};
  EXPECT_THROW(save_checkpoint(save_, 1, content, nullptr), InternalError);
  content.weights = {{"outside", {4, 2}, {3, 0}, at::zeros({4, 2})}};
  EXPECT_THROW(save_checkpoint(save_, 1, content, nullptr), InternalError);
  EXPECT_FALSE(find_latest(save_, nullptr));
}

TEST_F(Checkpoint, AllRanksAgreeOnTheOutcome) {
  write_file(folder_.path() / "file", "in the way");
  std::vector<std::string> messages(3);
  std::vector<int64_t> steps(3);
  run_ranks(3, [&](Communicator& world) {
    TinyModel model(1);
    save_checkpoint(save_, 4, model.content(), &world);
    steps[world.rank()] = find_latest(save_, &world)->step;
    messages[world.rank()] = message_of<ConfigError>(
        [&] { save_checkpoint(folder_.path() / "file" / "x", 1, model.content(), &world); });
  });
  EXPECT_THAT(steps, testing::Each(4));
  EXPECT_THAT(messages, testing::Each(HasSubstr("Not a directory")));
}

TEST_F(Checkpoint, FilesAreThoseOfTheReferenceWriter) {
  // The canonical order: widest type first, then by name; SafetensorsWriter is checked against the
  // Python library byte for byte.
  TinyModel model(1);
  CheckpointContent content = model.content();
  content.weights.push_back({"a.bf16", {3}, {0}, at::ones(3, at::kBFloat16)});
  const fs::path folder = save_checkpoint(save_, 1, content, nullptr);
  std::vector<SafetensorsTensor> tensors;
  std::map<std::string, at::Tensor> views;
  for (const NamedSlice& slice : content.weights) {
    const bool is_bf16 = slice.view.scalar_type() == at::kBFloat16;
    tensors.push_back({slice.name, is_bf16 ? SafetensorsDtype::kBF16 : SafetensorsDtype::kF32,
                       slice.global_shape});
    views[slice.name] = slice.view.contiguous();
  }
  SafetensorsWriter writer(folder_.path() / "want", tensors);
  for (const SafetensorsEntry& tensor : writer.tensors()) {
    const at::Tensor& view = views[tensor.name];
    writer.write(tensor.name,
                 {static_cast<const std::byte*>(view.const_data_ptr()), view.nbytes()});
  }
  writer.commit();
  EXPECT_EQ(read_file(folder / "model.safetensors"), read_file(folder_.path() / "want"));
}

}  // namespace
}  // namespace moetron
