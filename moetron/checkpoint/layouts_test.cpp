// Checkpoints of ranks that divide tensors: the files do not tell the layout, and any layout reads
// them.
#include <algorithm>
#include <chrono>
#include <functional>
#include <gmock/gmock.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/global_tensors.h"
#include "moetron/checkpoint/layouts_fixture.h"
#include "moetron/checkpoint/load_weights.h"
#include "moetron/comm/gloo_communicator.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using testing::Each;
using testing::HasSubstr;

class Layouts : public testing::Test {
 protected:
  fs::path save_alone() {
    const auto content = layouts_content(Layout::kReplicas, Layout::kReplicas, 0, 1);
    return save_checkpoint(folder_.path() / "alone", 1, content, nullptr, kSmallShards);
  }

  // What the ranks throw when all of them do, in the order of their ranks.
  template <class ErrorType>
  static std::vector<std::string> messages_of(int size,
                                              const std::function<void(Communicator&)>& work) {
    std::vector<std::string> messages(static_cast<size_t>(size), "no error");
    run_ranks(size, [&](Communicator& world) {
      try {
        work(world);
      } catch (const ErrorType& error) {
        messages[static_cast<size_t>(world.rank())] = error.what();
      }
    });
    return messages;
  }

  bool has_leftovers() const {
    for (const auto& entry : fs::directory_iterator(save_)) {
      if (entry.path().filename().string().starts_with('.')) return true;
    }
    return false;
  }

  TemporaryFolder folder_{"layouts_test"};
  fs::path save_ = folder_.path() / "save";
};

TEST_F(Layouts, TheFilesAreThoseOfOneRank) {
  const auto want = read_tree(save_alone());
  ASSERT_GE(want.size(), 8u + 5u) << "too few files for eight writers";
  for (const int size : {1, 2, 3, 4, 8}) {
    for (const Layout layout : kLayouts) {
      // States of another layout than the weights, as under ZeRO.
      const Layout states = layout == Layout::kRows ? Layout::kColumns : Layout::kStretch;
      if (layout == Layout::kGrid && size == 3) continue;
      run_ranks(size, [&](Communicator& world) {
        save_checkpoint(save_, 1, layouts_content(layout, states, world.rank(), size), &world,
                        kSmallShards);
      });
      EXPECT_TRUE(read_tree(save_ / "step_0000001") == want)
          << size << " ranks, layout " << static_cast<int>(layout);
      EXPECT_FALSE(has_leftovers());
    }
  }
}

TEST_F(Layouts, GlooRanksWriteThemToo) {
  const auto want = read_tree(save_alone());
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const auto join = [&](int rank) {
    GlooOptions options{.store = store, .rank = rank, .size = 4};
    options.timeout = options.join_timeout = std::chrono::minutes(5);
    return make_gloo_world(options);
  };
  run_ranks_with(4, join, [&](Communicator& world) {
    save_checkpoint(save_, 1, layouts_content(Layout::kGrid, Layout::kStretch, world.rank(), 4),
                    &world, kSmallShards);
    const auto weights = cut(layouts_weights(), Layout::kRows, world.rank(), 4, Values::kZero);
    load_checkpoint(save_ / "step_0000001", weights, {}, &world);
    EXPECT_TRUE(holds(weights, layouts_weights()));
  });
  EXPECT_TRUE(read_tree(save_ / "step_0000001") == want);
}

TEST_F(Layouts, EveryLayoutReadsThem) {
  const fs::path folder = save_alone();
  for (const int size : {1, 2, 4, 8}) {
    for (const Layout layout : kLayouts) {
      run_ranks(size, [&](Communicator& world) {
        const auto weights = cut(layouts_weights(), layout, world.rank(), size, Values::kZero);
        const auto states = cut(layouts_states(), layout, world.rank(), size, Values::kZero);
        const Json trainer = load_checkpoint(folder, weights, states, &world);
        EXPECT_EQ(trainer["step"], 1);
        EXPECT_TRUE(holds(weights, layouts_weights()) && holds(states, layouts_states()))
            << size << " ranks, layout " << static_cast<int>(layout);
      });
    }
  }
}

TEST_F(Layouts, MastersComeFromWeightsAndBack) {
  // fp32 weights in columns from masters that were saved as stretches of elements.
  WholeTensors wide;
  for (const auto& [name, state] : layouts_states()) {
    if (name.starts_with("master.")) wide[name.substr(7)] = state;
  }
  const fs::path folder = save_alone();
  run_ranks(4, [&](Communicator& world) {
    const auto weights = cut(wide, Layout::kColumns, world.rank(), 4, Values::kZero);
    // Rank 0 has no state of its own, and must read the masters as the others do.
    std::vector<NamedSlice> states;
    if (world.rank() > 0) {
      states =
          cut({{"exp_avg.model.norm.weight", layouts_states().at("exp_avg.model.norm.weight")}},
              Layout::kReplicas, 0, 1, Values::kZero);
    }
    load_checkpoint(folder, weights, states, &world);
    EXPECT_TRUE(holds(weights, wide) && holds(states, layouts_states()));
  });
}

TEST_F(Layouts, TensorsOfManyBlocks) {
  // Five blocks; their bounds cut rows, and columns halves of elements' neighbours.
  const WholeTensors tensors{
      {"big", at::arange(4'600'000 * 2, at::kInt).view(at::kFloat).view({2300, 4000}).t()},
      {"a", at::arange(3, at::kLong)},
      {"odd", at::arange(5, at::kFloat)}};
  const auto content_of = [&](Layout layout, int rank, int size) {
    CheckpointContent content;
    content.config = "{}\n";
    content.weights = cut(tensors, layout, rank, size);
    content.states = cut({{"exp_avg.odd", tensors.at("odd")}}, layout, rank, size);
    return content;
  };
  save_checkpoint(folder_.path() / "alone", 1, content_of(Layout::kReplicas, 0, 1), nullptr);
  const std::string want = read_file(folder_.path() / "alone/step_0000001/model.safetensors");
  const std::string hashes = read_file(folder_.path() / "alone/step_0000001/manifest.json");
  for (const auto& [layout, size] : {std::pair{Layout::kColumns, 3}, {Layout::kStretch, 2}}) {
    run_ranks(size, [&, layout = layout, size = size](Communicator& world) {
      save_checkpoint(save_, 1, content_of(layout, world.rank(), size), &world);
    });
    EXPECT_TRUE(read_file(save_ / "step_0000001/model.safetensors") == want);
    EXPECT_TRUE(read_file(save_ / "step_0000001/manifest.json") == hashes);
  }
  EXPECT_EQ(find_latest(save_, nullptr)->step, 1);  // the hashes are those of the files
}

TEST_F(Layouts, SlicesThatDoNotCoverATensorAreOurMistake) {
  const auto save = [&](std::vector<std::vector<NamedSlice>> by_rank) {
    const auto messages = messages_of<InternalError>(3, [&](Communicator& world) {
      CheckpointContent content;
      content.config = "{}\n";
      content.weights = by_rank[static_cast<size_t>(world.rank())];
      save_checkpoint(save_, 1, content, &world);
    });
    EXPECT_THAT(messages, Each(messages[0]));
    EXPECT_FALSE(fs::exists(save_) && !fs::is_empty(save_));
    return messages[0];
  };
  const auto rows = [](int64_t begin, int64_t count) {
    return NamedSlice{"w", {6, 2}, {begin, 0}, at::ones({count, 2})};
  };
  EXPECT_THAT(save({{rows(0, 2)}, {}, {rows(4, 2)}}),
              HasSubstr("w: the slices of all ranks hold 8 of 12 elements"));
  EXPECT_THAT(save({{rows(0, 3)}, {rows(2, 2)}, {rows(4, 2)}}), HasSubstr("hold 14 of 12"));
  EXPECT_THAT(save({{rows(0, 3)}, {rows(2, 1)}, {rows(4, 2)}}),
              HasSubstr("w: the slices of all ranks hold 12 of 12 elements, but those of ranks 0 "
                        "and 1 overlap"));
  EXPECT_THAT(save({{rows(0, 6)}, {rows(0, 3), rows(0, 3)}, {}}),
              HasSubstr("w: rank 1 holds the same slice twice"));
  EXPECT_THAT(save({{rows(0, 6)}, {{"w", {6, 1}, {0, 0}, at::ones({6, 1})}}, {}}),
              HasSubstr("disagree"));
  EXPECT_THAT(save({{rows(0, 6)}, {rows(4, 3)}, {}}), HasSubstr("elements 4 to 7"));
  EXPECT_THAT(save({{rows(0, 6)}, {{"v", {1}, {0}, at::ones(1, at::kInt)}}, {}}),
              HasSubstr("no tensors of type Int"));
}

TEST_F(Layouts, ARankThatCannotWriteStopsAll) {
  const auto save = [&](int64_t step, int failing) {
    return messages_of<ConfigError>(4, [&](Communicator& world) {
      // One rank sees another folder, as where a disk is not mounted.
      const fs::path seen = world.rank() == failing ? folder_.path() / "elsewhere" : save_;
      // Weights on all ranks: each writes some.
      const auto content = layouts_content(Layout::kReplicas, Layout::kStretch, world.rank(), 4);
      save_checkpoint(seen, step, content, &world, kSmallShards);
    });
  };
  EXPECT_THAT(save(1, -1), Each("no error"));
  for (const int failing : {1, 2, 3}) {
    const auto messages = save(2, failing);
    EXPECT_THAT(messages, Each(messages[0]));
    EXPECT_THAT(messages[0], HasSubstr("elsewhere/.step_0000002."));
    EXPECT_THAT(messages[0], HasSubstr(concat("No such file or directory (rank ", failing, ")")));
    EXPECT_FALSE(has_leftovers());
    EXPECT_FALSE(fs::exists(save_ / "step_0000002"));
  }
  EXPECT_EQ(find_latest(save_, nullptr)->step, 1);
}

TEST_F(Layouts, AFailureInALongSaveStopsAll) {
  // A file for each tensor: more blocks than pass between two agreements.
  WholeTensors tensors;
  for (int i = 0; i < 100; ++i) tensors[concat("t", i)] = at::full({4, 3}, double(i));
  const auto save = [&](const std::string& elsewhere) {
    return messages_of<ConfigError>(2, [&](Communicator& world) {
      CheckpointContent content;
      content.config = "{}\n";
      content.weights = cut(tensors, Layout::kColumns, world.rank(), 2);
      save_checkpoint(world.rank() == 1 ? folder_.path() / elsewhere : save_, 1, content, &world,
                      {.shard_bytes = 1});
    });
  };
  EXPECT_THAT(save("elsewhere"), Each(HasSubstr(".tmp/model-000")));
  EXPECT_FALSE(has_leftovers());
  EXPECT_THAT(save("save"), Each("no error"));
  const auto read = cut(tensors, Layout::kRows, 0, 1, Values::kZero);
  load_checkpoint(find_latest(save_, nullptr)->folder, read, {});
  EXPECT_TRUE(holds(read, tensors));
}

TEST_F(Layouts, ARankThatCannotReadStopsAll) {
  const fs::path folder = save_alone();
  const auto load = [&](const NamedSlice& weight, const NamedSlice& state) {
    const auto messages = messages_of<InputError>(4, [&](Communicator& world) {
      auto weights = cut(layouts_weights(), Layout::kExperts, world.rank(), 4, Values::kZero);
      auto states = cut(layouts_states(), Layout::kExperts, world.rank(), 4, Values::kZero);
      if (world.rank() == 2) {
        weights[0] = weight;
        states[0] = state;
      }
      load_checkpoint(folder, weights, states, &world);
    });
    EXPECT_THAT(messages, Each(messages[0]));
    return messages[0];
  };
  const NamedSlice weight{"model.norm.weight", {9}, {0}, at::zeros(9, at::kBFloat16)};
  const NamedSlice state{"exp_avg.model.norm.weight", {9}, {0}, at::zeros(9)};
  NamedSlice longer = weight, unknown = state;
  EXPECT_EQ(load(weight, state), "no error");
  longer.global_shape = {10};
  EXPECT_THAT(load(longer, state), HasSubstr("model.norm.weight has the shape [9], the model"));
  unknown.name = "exp_avg.nobody";
  EXPECT_THAT(load(weight, unknown), HasSubstr("exp_avg.nobody"));
}

TEST_F(Layouts, UnusedTensorsAreThoseThatNoRankUses) {
  const fs::path folder = save_alone();
  const auto said_without = [&](const std::string& left_out) {
    WholeTensors tensors = layouts_weights();
    tensors.erase(left_out);
    std::vector<size_t> num_unused(4);
    testing::internal::CaptureStderr();
    run_ranks(4, [&](Communicator& world) {
      const auto weights = cut(tensors, Layout::kExperts, world.rank(), 4, Values::kZero);
      const LoadReport report = load_weights(folder, weights, &world);
      num_unused[static_cast<size_t>(world.rank())] = report.unused.size();
    });
    EXPECT_THAT(num_unused, Each(left_out.empty() ? 0 : 1));
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(said_without(""), "");
  const std::string said = said_without("model.layers.2.mlp.experts.3.up_proj.weight");
  EXPECT_THAT(said, HasSubstr("holds 1 tensors that the model does not use, the first is "
                              "model.layers.2.mlp.experts.3.up_proj.weight"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1);
}

TEST(NameOrder, NumbersCountAsNumbers) {
  const std::vector<std::string> sorted{"",    "a",    "a.2.b", "a.02.c", "a.10.b",
                                        "a.b", "a2.0", "lm",    "model.1"};
  for (size_t i = 0; i < sorted.size(); ++i) {
    for (size_t j = 0; j < sorted.size(); ++j) {
      EXPECT_EQ(comes_before(sorted[i], sorted[j]), i < j) << sorted[i] << " and " << sorted[j];
    }
  }
  EXPECT_TRUE(comes_before("a.02", "a.2") != comes_before("a.2", "a.02"));
}

}  // namespace
}  // namespace moetron
