#include "moetron/base/child_processes.h"

#include <csignal>
#include <fstream>
#include <iterator>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/temporary_folder.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kHang{300};

class ChildProcessesTest : public ::testing::Test {
 protected:
  void start(const std::string& script,
             const std::map<std::string, std::optional<std::string>>& variables = {}) {
    children_.start({"/bin/sh", {"sh", "-c", script}, variables, folder_.path() / "log"});
  }
  ChildEvent wait() { return children_.wait(steady_clock::now() + kHang); }
  ChildEnd wait_end() { return std::get<ChildEnd>(wait()); }
  std::string log() const { return read_file(folder_.path() / "log"); }
  // Returns when the log is as long as that of a child which has begun.
  void wait_for_log(size_t size) const {
    const auto deadline = steady_clock::now() + kHang;
    while (log().size() < size && steady_clock::now() < deadline)
      std::this_thread::sleep_for(milliseconds(5));
  }
  // A process that has been killed may take a moment; nobody may be there to wait for it.
  static bool is_gone(int process) {
    const auto deadline = steady_clock::now() + kHang;
    while (steady_clock::now() < deadline) {
      std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
      const std::string text((std::istreambuf_iterator<char>(stat)), {});
      if (text.empty() || text.find(") Z ") != std::string::npos) return true;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return false;
  }

  const TemporaryFolder folder_{"children"};
  ChildProcesses children_;
};

TEST_F(ChildProcessesTest, TellsHowEachEnded) {
  start("exit 7");
  EXPECT_EQ(children_.num_running(), 1);
  const ChildEnd left = wait_end();
  EXPECT_EQ(left.child, 0);
  EXPECT_EQ(left.exit_code, 7);
  EXPECT_EQ(left.signal, 0);
  start("kill -SEGV $$");
  const ChildEnd killed = wait_end();
  EXPECT_EQ(killed.child, 1);
  EXPECT_EQ(killed.exit_code, 128 + SIGSEGV);
  EXPECT_EQ(killed.signal, SIGSEGV);
  EXPECT_EQ(children_.num_running(), 0);
}

TEST_F(ChildProcessesTest, GivesVariablesAndTakesThem) {
  ::setenv("MOETRON_TEST_TAKEN", "1", /*overwrite=*/1);
  ::setenv("MOETRON_TEST_KEPT", "2", /*overwrite=*/1);
  start("echo $MOETRON_TEST_TAKEN,$MOETRON_TEST_KEPT,$MOETRON_TEST_GIVEN; cat; echo end >&2",
        {{"MOETRON_TEST_TAKEN", std::nullopt}, {"MOETRON_TEST_GIVEN", "3"}});
  EXPECT_EQ(wait_end().exit_code, 0);
  EXPECT_EQ(log(), ",2,3\nend\n") << "cat found an end at once";
  start("echo more");
  wait_end();
  EXPECT_EQ(log(), ",2,3\nend\nmore\n");
}

TEST_F(ChildProcessesTest, SignalsAreEventsAndReachWhatChildrenStarted) {
  start("trap 'echo asked; exit 5' USR1; sleep 1000 & echo on; wait");
  wait_for_log(3);
  EXPECT_TRUE(std::holds_alternative<DeadlinePassed>(children_.wait(steady_clock::now())));
  ::raise(SIGUSR1);
  EXPECT_EQ(std::get<ReceivedSignal>(wait()).number, SIGUSR1);
  children_.send(SIGUSR1);
  EXPECT_EQ(wait_end().exit_code, 5);
  EXPECT_EQ(log(), "on\nasked\n");
}

TEST_F(ChildProcessesTest, NothingThatAChildStartedIsLeft) {
  start("sleep 1000 & echo $!");
  EXPECT_EQ(wait_end().exit_code, 0);
  EXPECT_TRUE(is_gone(std::stoi(log())));
}

TEST_F(ChildProcessesTest, RefusesALogThatCannotBeWritten) {
  EXPECT_THROW(children_.start({"/bin/sh", {"sh"}, {}, folder_.path() / "absent" / "log"}),
               ConfigError);
  EXPECT_EQ(children_.num_running(), 0);
}

// A child of a child: killed with SIGKILL, its own children must go, too.
TEST_F(ChildProcessesTest, ChildrenDieWithTheProcessThatStartedThem) {
  const pid_t launcher = ::fork();
  if (launcher == 0) {
    ChildProcesses inner;
    inner.start(
        {"/bin/sh", {"sh", "-c", "echo $$; exec sleep 1000"}, {}, folder_.path() / "inner"});
    ::pause();
    ::_exit(0);
  }
  const auto deadline = steady_clock::now() + kHang;
  int inner = 0;
  while (inner == 0 && steady_clock::now() < deadline) {
    std::ifstream(folder_.path() / "inner") >> inner;
    std::this_thread::sleep_for(milliseconds(5));
  }
  ASSERT_GT(inner, 0);
  ::kill(launcher, SIGKILL);
  EXPECT_TRUE(is_gone(inner));
  ::waitpid(launcher, nullptr, 0);
}

}  // namespace
}  // namespace moetron
