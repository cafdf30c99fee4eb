// A saver that is killed at any moment leaves a sound checkpoint behind.
#include <chrono>
#include <csignal>
#include <fstream>
#include <gmock/gmock.h>
#include <random>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/save_lock.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kRows = 1000;

// Weights and states that say which step they are from.
CheckpointContent content_of(int64_t step) {
  CheckpointContent content;
  content.config = "{}\n";
  content.trainer = trainer_text(step);
  for (const char* name : {"a", "b", "c"}) {
    const at::Tensor values = at::full({kRows, 64}, static_cast<double>(step));
    content.weights.push_back({name, {kRows, 64}, {0, 0}, values});
    content.states.push_back({concat("exp_avg.", name), {kRows, 64}, {0, 0}, values * 2});
  }
  return content;
}

// Every value of the checkpoint is of one step.
void expect_consistent(const FoundCheckpoint& found) {
  CheckpointContent content = content_of(0);
  const Json trainer = load_checkpoint(found.folder, content.weights, content.states);
  EXPECT_EQ(trainer["step"], found.step);
  const auto step = static_cast<float>(found.step);
  for (const NamedSlice& slice : content.weights)
    EXPECT_TRUE((slice.view == step).all().item<bool>());
  for (const NamedSlice& slice : content.states) {
    EXPECT_TRUE((slice.view == 2 * step).all().item<bool>());
  }
}

bool has_leftovers(const fs::path& save) {
  for (const fs::directory_entry& entry : fs::directory_iterator(save)) {
    if (entry.path().filename().string().starts_with(".step_")) return true;
  }
  return false;
}

// A child process with one compute thread (OpenMP's do not survive a fork) that cannot hang.
pid_t fork_child() {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(600);
    at::set_num_threads(1);
  }
  return child;
}

// As a user's script may: what is half deleted does not have a checkpoint's name.
void hide_and_delete(const fs::path& save, int64_t step) {
  const fs::path hidden = temporary_folder(save, step, 0);
  if (!fs::exists(checkpoint_folder(save, step))) return;
  fs::rename(checkpoint_folder(save, step), hidden);
  fs::remove_all(hidden);
}

// Saves in a child process from `first` on, keeping two, every step twice, until it is killed.
pid_t start_saver(const fs::path& save, int64_t first) {
  const pid_t child = fork_child();
  if (child != 0) return child;
  try {
    const SaveLock lock(save);
    remove_leftovers(save);
    for (int64_t step = first;; ++step) {
      save_checkpoint(save, step, content_of(step), nullptr);
      save_checkpoint(save, step, content_of(step), nullptr);
      hide_and_delete(save, step - 2);
    }
  } catch (const std::exception& error) {
    ::_exit(1);
  }
}

TEST(KilledSave, LeavesTheLatestOrTheOneBefore) {
  TemporaryFolder folder("kill_test");
  const fs::path save = folder.path() / "save";
  // Kills fall within a few times what a save takes on this machine, now.
  const auto begin = std::chrono::steady_clock::now();
  save_checkpoint(save, 1, content_of(1), nullptr);
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
  const auto longest = static_cast<useconds_t>(20000 + 4 * took.count());
  std::mt19937 random(1);
  int64_t latest = 1;
  int interrupted = 0;
  for (int trial = 0; trial < 50; ++trial) {
    const pid_t child = start_saver(save, latest + 1);
    ASSERT_GT(child, 0);
    ::usleep(random() % longest);
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the saver failed by itself";
    const auto found = find_latest(save, nullptr);
    ASSERT_TRUE(found);
    EXPECT_GE(found->step, latest);
    // What a kill leaves behind is hidden: no folder with a checkpoint's name is damaged.
    EXPECT_EQ(list_steps(save).front(), found->step);
    expect_consistent(*found);
    latest = found->step;
    interrupted += has_leftovers(save);
  }
  EXPECT_GT(interrupted, 5);  // the kills did hit saves
  EXPECT_GT(latest, 5);       // and saves did get through
  remove_leftovers(save);
  EXPECT_FALSE(has_leftovers(save));
}

TEST(FailedSave, AWriteErrorRemovesWhatWasBegun) {
  TemporaryFolder folder("limit_test");
  const fs::path save = folder.path() / "save";
  save_checkpoint(save, 1, content_of(1), nullptr);
  const fs::path said = folder.path() / "said";
  const pid_t child = fork_child();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // A limit on the size of files stands in for a full disk: write() fails half way.
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{300000, 300000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      save_checkpoint(save, 2, content_of(2), nullptr);
    } catch (const ConfigError& error) {
      std::ofstream(said) << error.what();
      ::_exit(0);
    }
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_THAT(read_file(said), testing::HasSubstr("model.safetensors: File too large"));
  EXPECT_FALSE(has_leftovers(save));
  expect_consistent(*find_latest(save, nullptr));
}

}  // namespace
}  // namespace moetron
