// A save folder that holds a run's past must never pass for an empty one, and belongs to one run.
#include <atomic>
#include <functional>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/save_lock.h"
#include "moetron/checkpoint/set_aside.h"
#include "moetron/checkpoint/trainer_state.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/formats/manifest.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Each;
using testing::HasSubstr;

class SaveFolder : public testing::Test {
 protected:
  fs::path save(int64_t step) {
    return save_checkpoint(save_, step, TinyModel(1).content(), nullptr);
  }

  template <class ErrorType>
  static std::string message_of(const std::function<void()>& work) {
    try {
      work();
    } catch (const ErrorType& error) {
      return error.what();
    }
    return "no error";
  }

  std::string why_none_is_found() {
    return message_of<InputError>([&] { find_latest(save_, nullptr); });
  }

  // Puts a trainer.json into a checkpoint, with a manifest that agrees.
  void replace_trainer(const fs::path& folder, const std::string& text, int64_t manifest_step) {
    write_file(folder / kTrainerFile, text);
    std::vector<ManifestFile> files;
    for (const ManifestFile& file : read_manifest(folder))
      files.push_back(hash_file(folder, file.name));
    write_manifest(folder, files, {{"step", manifest_step}});
  }

  TemporaryFolder folder_{"save_folder_test"};
  fs::path save_ = folder_.path() / "save";
};

TEST_F(SaveFolder, OnlyAMissingFolderIsAnEmptyOne) {
  EXPECT_FALSE(find_latest(save_, nullptr));
  write_file(folder_.path() / "file", "");
  fs::create_symlink("loop", folder_.path() / "loop");
  for (const char* name : {"file", "file/below", "loop"}) {
    const fs::path place = folder_.path() / name;
    EXPECT_THAT(message_of<InputError>([&] { list_steps(place); }),
                HasSubstr("cannot list " + place.string()));
  }
}

TEST_F(SaveFolder, WhereNoneLoadsEachReasonIsGiven) {
  save(1);
  save(2);
  fs::remove(save_ / "step_0000001/manifest.json");
  fs::resize_file(save_ / "step_0000002/config.json", 3);
  write_file(save_ / "step_0000003", "a file");
  fs::create_symlink("unmounted", save_ / "step_0000004");
  fs::create_symlink("step_0000005", save_ / "step_0000005");
  EXPECT_THAT(why_none_is_found(),
              AllOf(HasSubstr("none of the 5 checkpoints in " + save_.string()),
                    HasSubstr("step_0000001 is no checkpoint: it holds no manifest.json"),
                    HasSubstr("step_0000002/config.json has 3 bytes"),
                    HasSubstr("step_0000003 is no folder"), HasSubstr("step_0000004 is no folder"),
                    HasSubstr("cannot look at " + (save_ / "step_0000005").string())));
  std::vector<std::string> messages(3);
  run_ranks(3, [&](Communicator& world) {
    messages[static_cast<size_t>(world.rank())] =
        message_of<InputError>([&] { find_latest(save_, &world); });
  });
  EXPECT_THAT(messages, Each(why_none_is_found()));
}

TEST_F(SaveFolder, AnUnreadableNewestIsPassedOver) {
  save(1);
  fs::create_symlink("step_0000002", save_ / "step_0000002");
  testing::internal::CaptureStderr();
  EXPECT_EQ(find_latest(save_, nullptr)->step, 1);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("step_0000002 is left out"));
  // The run comes to that step again, and its checkpoint takes the place.
  save(2);
  EXPECT_EQ(find_latest(save_, nullptr)->step, 2);
}

// Of the checkpoints that a reader listed, those that a run has removed since are no reason to give
// up: its next one stands there by then.
TEST_F(SaveFolder, ARunThatSavesMeanwhileIsNoHindrance) {
  save(1);
  std::atomic<bool> is_done = false;
  std::thread run([&] {
    for (int64_t step = 2; !is_done; ++step) {
      save(step);
      fs::remove_all(checkpoint_folder(save_, step - 1));
    }
  });
  testing::internal::CaptureStderr();  // which were left out
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(message_of<InputError>([&] { find_latest(save_, nullptr); }), "no error");
  is_done = true;
  run.join();
  testing::internal::GetCapturedStderr();
}

TEST_F(SaveFolder, AStepIsWhatTheCheckpointSays) {
  save(100);
  fs::rename(save_ / "step_0000100", save_ / "step_0000200");
  EXPECT_THAT(why_none_is_found(), HasSubstr("step_0000200 holds step 100 by its "
                                             "state/trainer.json, not step 200; rename it to "
                                             "step_0000100"));
  replace_trainer(save_ / "step_0000200", trainer_text(200), 100);
  EXPECT_THAT(why_none_is_found(), HasSubstr("holds step 100 by its manifest.json, not step 200"));
  replace_trainer(save_ / "step_0000200", trainer_text(200), 200);
  EXPECT_EQ(find_latest(save_, nullptr)->step, 200);
  save(10);
  fs::copy(save_ / "step_0000010", save_ / "step_0000300", fs::copy_options::recursive);
  testing::internal::CaptureStderr();
  EXPECT_EQ(find_latest(save_, nullptr)->step, 200);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("holds step 10"));
}

TEST_F(SaveFolder, EveryKeyOfTheTrainerIsChecked) {
  const fs::path folder = save(7);
  const Json good = parse_json(trainer_text(7), "trainer");
  for (const auto& [key, value] : good.items()) {
    Json lacking = good;
    lacking.erase(key);
    replace_trainer(folder, lacking.dump(), 7);
    EXPECT_THAT(why_none_is_found(), HasSubstr("state/trainer.json lacks the key " + key));
    for (const Json& wrong : {Json("7"), Json(-1), Json(7.5), Json(nullptr), Json::array({7})}) {
      Json mistyped = good;
      mistyped[key] = wrong;
      replace_trainer(folder, mistyped.dump(), 7);
      EXPECT_THAT(why_none_is_found(),
                  HasSubstr(concat("state/trainer.json: ", key, " (", wrong.dump(), ") must be")));
    }
  }
  replace_trainer(folder, "[1]", 7);
  EXPECT_THAT(why_none_is_found(), HasSubstr("state/trainer.json holds no object"));
}

TEST_F(SaveFolder, ReadersOfAModelCheckItsManifest) {
  const fs::path folder = save(1);
  const auto why_refused = [&](Communicator* world) {
    return message_of<InputError>([&] { check_model_files(folder, world); });
  };
  EXPECT_EQ(why_refused(nullptr), "no error");
  std::string bytes = read_file(folder / "model.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file(folder / "model.safetensors", bytes);
  EXPECT_THAT(why_refused(nullptr), HasSubstr("model.safetensors is damaged in block 0"));
  std::vector<std::string> messages(3);
  run_ranks(3, [&](Communicator& world) {
    messages[static_cast<size_t>(world.rank())] = why_refused(&world);
  });
  EXPECT_THAT(messages, Each(HasSubstr("model.safetensors is damaged in block 0")));
  testing::internal::CaptureStderr();
  check_model_files(folder, nullptr, Verify::kSizes);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("no-verify: the blocks of " + folder.string() + " are not checked"));
  write_file(folder / "model.safetensors", bytes + " ");
  EXPECT_THAT(message_of<InputError>([&] { check_model_files(folder, nullptr, Verify::kSizes); }),
              HasSubstr("bytes, its manifest says"));
  fs::remove(folder / "manifest.json");
  EXPECT_EQ(why_refused(nullptr), "no error");
}

// Each rank reads a part of the blocks, and what one of them finds is what all of them know.
TEST_F(SaveFolder, RanksShareTheSearchForTheNewest) {
  save(1);
  const fs::path newest = save(2);
  for (const ManifestFile& file : read_manifest(newest)) {
    if (file.name == kTrainerFile) continue;  // which is looked at whatever is verified
    const std::string good = read_file(newest / file.name);
    std::string bytes = good;
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    write_file(newest / file.name, bytes);
    std::vector<int64_t> checked(3), unchecked(3);
    testing::internal::CaptureStderr();
    run_ranks(3, [&](Communicator& world) {
      const auto rank = static_cast<size_t>(world.rank());
      checked[rank] = find_latest(save_, &world)->step;
      unchecked[rank] = find_latest(save_, &world, Verify::kSizes)->step;
    });
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                HasSubstr(file.name + " is damaged in block 0"));
    EXPECT_THAT(checked, Each(1)) << file.name;
    EXPECT_THAT(unchecked, Each(2)) << file.name;
    write_file(newest / file.name, good);
  }
}

TEST_F(SaveFolder, NothingIsLostWhereARunBeginsAnew) {
  const fs::path metrics = folder_.path() / "other.jsonl";
  for (const int number : {1, 2}) {
    save(1);
    save(2);
    write_file(save_ / "metrics.jsonl", "records");
    write_file(metrics, "more records");
    const std::string name = concat("before_restart_", number);
    EXPECT_EQ(set_aside(save_, metrics), save_ / name);
    EXPECT_FALSE(find_latest(save_, nullptr));
    EXPECT_EQ(find_latest(save_ / name, nullptr)->step, 2);
    EXPECT_EQ(read_file(save_ / name / "metrics.jsonl"), "records");
    EXPECT_EQ(read_file(metrics.string() + "." + name), "more records");
    EXPECT_FALSE(fs::exists(save_ / "metrics.jsonl") || fs::exists(metrics));
  }
}

TEST_F(SaveFolder, ASecondRunIsRefused) {
  const SaveLock lock(save_);
  EXPECT_TRUE(lock.is_held());
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  EXPECT_THAT(message_of<ConfigError>([&] { SaveLock second(save_); }),
              HasSubstr(concat("process ", ::getpid(), " on ", host.data(), " is saving into ",
                               save_.string())));
}

TEST_F(SaveFolder, ACrashFreesTheLock) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const SaveLock lock(save_);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(SaveLock(save_).is_held());
}

TEST_F(SaveFolder, AFolderThatCannotBeMadeIsNamed) {
  write_file(folder_.path() / "file", "");
  for (const char* name : {"file", "file/save"}) {
    const fs::path place = folder_.path() / name;
    EXPECT_THAT(message_of<ConfigError>([&] { SaveLock lock(place); }),
                AllOf(HasSubstr("save: "), HasSubstr(place.string())));
  }
}

TEST_F(SaveFolder, LeftoversGoAndNothingElse) {
  save(1);
  const fs::path mine = temporary_folder(save_, 2, 12345), old = save_ / ".step_0000003.tmp";
  EXPECT_NE(mine, temporary_folder(save_, 2, 12346));
  for (const fs::path& leftover : {mine, old}) fs::create_directories(leftover / "state");
  fs::create_directories(save_ / ".other.tmp");
  remove_leftovers(save_);
  EXPECT_FALSE(fs::exists(mine) || fs::exists(old));
  EXPECT_TRUE(fs::exists(save_ / ".other.tmp"));
  EXPECT_EQ(find_latest(save_, nullptr)->step, 1);
}

}  // namespace
}  // namespace moetron
