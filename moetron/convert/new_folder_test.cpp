#include "moetron/convert/new_folder.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/temporary_folder.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(NewFolderTest, AppearsWholeOrNotAtAll) {
  const TemporaryFolder place("new");
  {
    NewFolder folder(place.path() / "a/", 0);
    std::ofstream(folder.path() / "x") << "x";
    EXPECT_FALSE(fs::exists(place.path() / "a"));
    folder.commit();
  }
  { const NewFolder folder(place.path() / "b", 0); }
  EXPECT_EQ(names_in(place.path()), std::vector<std::string>{"a"});
  EXPECT_TRUE(fs::exists(place.path() / "a/x"));
}

// A process that is killed at work leaves its folder; the next one in the same place deletes it,
// but none that another is at work in, nor what only has a like name.
TEST(NewFolderTest, DeletesWhatKilledOnesLeft) {
  const TemporaryFolder place("new");
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    NewFolder folder(place.path() / "killed", 0);
    std::ofstream(folder.path() / "x") << "x";
    const char byte = 1;
    [[maybe_unused]] const auto written = ::write(ready[1], &byte, 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  std::ofstream(place.path() / ".moetron-convert-file") << "no folder";
  fs::create_directories(place.path() / ".moetron-other/x");
  {
    const NewFolder alive(place.path() / "b", 0);
    EXPECT_EQ(names_in(place.path()).size(), 4u) << "both are at work";
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    EXPECT_EQ(names_in(place.path()).size(), 4u);
    { const NewFolder next(place.path() / "c", 0); }
    EXPECT_EQ(names_in(place.path()).size(), 3u) << "the killed one's is gone";
    EXPECT_TRUE(fs::exists(alive.path()));
  }
  EXPECT_EQ(names_in(place.path()),
            (std::vector<std::string>{".moetron-convert-file", ".moetron-other"}));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(NewFolderTest, RefusesWhatIsThere) {
  const TemporaryFolder place("new");
  fs::create_directories(place.path() / "a/x");
  EXPECT_THROW(NewFolder(place.path() / "a", 0), ConfigError);
  EXPECT_THROW(NewFolder(place.path() / "b", uint64_t{1} << 62), ConfigError);
  EXPECT_EQ(names_in(place.path()), std::vector<std::string>{"a"});
}

}  // namespace
}  // namespace moetron
