// Which checkpoints a run keeps, and that a kill between two of its calls leaves none half removed.
#include "moetron/checkpoint/keep_checkpoints.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/file.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/formats/manifest.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

class KeepCheckpoints : public testing::Test {
 protected:
  void save(std::initializer_list<int64_t> steps) {
    for (const int64_t step : steps) save_checkpoint(save_, step, TinyModel(1).content(), nullptr);
  }
  fs::path folder_of(int64_t step) const { return checkpoint_folder(save_, step); }
  void damage(int64_t step) const { fs::resize_file(folder_of(step) / "model.safetensors", 7); }

  TemporaryFolder folder_{"keep_checkpoints_test"};
  fs::path save_ = folder_.path() / "save";
};

TEST_F(KeepCheckpoints, WithoutARuleAllStay) {
  save({2, 4, 6});
  damage(2);
  remove_old_checkpoints(save_, {}, 6);
  EXPECT_THAT(list_steps(save_), ElementsAre(6, 4, 2));
}

TEST_F(KeepCheckpoints, TheNewestAndTheMultiplesStay) {
  save({2, 4, 6, 8, 10});
  remove_old_checkpoints(save_, {.last = 4}, 10);
  EXPECT_THAT(list_steps(save_), ElementsAre(10, 8, 6, 4));
  remove_old_checkpoints(save_, {.last = 2, .every = 4}, 10);
  EXPECT_THAT(list_steps(save_), ElementsAre(10, 8, 4));
  save({11});
  remove_old_checkpoints(save_, {.every = 4}, 11);
  EXPECT_THAT(list_steps(save_), ElementsAre(11, 8, 4)) << "the one just saved, without keep-last";
  remove_old_checkpoints(save_, {.last = 1}, 11);
  EXPECT_THAT(list_steps(save_), ElementsAre(11));
  for (const fs::directory_entry& entry : fs::directory_iterator(save_)) {
    EXPECT_EQ(entry.path(), folder_of(11)) << "nothing hidden is left";
  }
}

TEST_F(KeepCheckpoints, ADamagedOneIsMovedAsideAndNotCounted) {
  save({2, 4, 6, 8});
  damage(6);
  write_file(folder_of(5), "no folder\n");
  fs::remove(folder_of(2) / kManifestFile);
  remove_old_checkpoints(save_, {.last = 2}, 8);
  EXPECT_THAT(list_steps(save_), ElementsAre(8, 4));
  EXPECT_TRUE(fs::exists(save_ / "damaged_1" / folder_of(6).filename() / "config.json"));
  EXPECT_TRUE(fs::is_regular_file(save_ / "damaged_2" / folder_of(5).filename()));
  EXPECT_TRUE(fs::exists(save_ / "damaged_3" / folder_of(2).filename() / "config.json"));
}

// A resume passes over newer ones by their hashes: here they must neither count nor be touched.
TEST_F(KeepCheckpoints, WhatIsNewerThanTheSavedStepStaysAndDoesNotCount) {
  save({2, 4, 6, 8});
  damage(8);
  remove_old_checkpoints(save_, {.last = 1}, 4);
  EXPECT_THAT(list_steps(save_), ElementsAre(8, 6, 4));
}

TEST_F(KeepCheckpoints, WhatTheRunWasLoadedFromStays) {
  save({2, 4, 6});
  fs::create_directory_symlink(folder_of(2), folder_.path() / "link");
  remove_old_checkpoints(save_, {.last = 1, .loaded = folder_.path() / "link"}, 6);
  EXPECT_THAT(list_steps(save_), ElementsAre(6, 2));
  remove_old_checkpoints(save_, {.last = 1, .loaded = folder_.path() / "absent"}, 6);
  EXPECT_THAT(list_steps(save_), ElementsAre(6));
}

TEST_F(KeepCheckpoints, WhatCannotBeListedIsAWarning) {
  remove_old_checkpoints(save_, {.last = 1}, 6);
  write_file(save_.string() + "_file", "text");
  remove_old_checkpoints(save_.string() + "_file", {.last = 1}, 6);
}

}  // namespace
}  // namespace moetron
