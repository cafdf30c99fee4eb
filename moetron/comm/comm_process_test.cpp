// Ranks as real processes over gloo.
//
//   comm_process_test                    one rank: joins by the environment of its launcher
//   (torchrun,
//                                        mpirun, srun), runs collectives, checks them
//   comm_process_test launch MODE        starts four ranks of itself as a launcher would, and
//   checks
//                                        how they end. MODE: run; kill R, stop R or exit R: rank R
//                                        dies by SIGKILL, hangs by SIGSTOP, or leaves in mid-run
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <ATen/ATen.h>

#include "moetron/base/file.h"
#include "moetron/comm/rendezvous.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr int kNumRanks = 4;
constexpr milliseconds kTimeout{6000};
constexpr seconds kSurvivorLimit{200};  // time-out, search for silent ranks, and a slow machine

void expect(bool condition, const std::string& what) {
  if (!condition) throw InternalError(what);
}

void run_collectives(Communicator& world) {
  const int size = world.size();
  const at::Tensor sum = at::full({100003}, 1.0f + world.rank());
  world.all_reduce(sum).wait();
  expect(at::equal(sum, at::full_like(sum, size * (size + 1) / 2.0f)), "all_reduce is wrong");
  auto half = world.split(world.rank() % 2, world.rank(), "half");
  const at::Tensor gathered = at::empty({half->size()}, at::kLong);
  half->all_gather(gathered, at::full({1}, world.rank(), at::kLong)).wait();
  expect(at::equal(gathered, at::arange(half->size()) * 2 + world.rank() % 2),
         "all_gather is wrong");
}

// Reduces without end; rank `victim` ends in mid-collective, the others must notice.
void run_until_failure(Communicator& world, const std::string& mode, int victim) {
  PhaseScope phase(world, "step 3");
  for (int i = 0;; ++i) {
    Work work = world.all_reduce(at::ones({1 << 20}));
    if (i == 20 && world.rank() == victim) {
      if (mode == "exit") ::_exit(0);
      ::raise(mode == "kill" ? SIGKILL : SIGSTOP);
    }
    work.wait();
  }
}

int run_rank(const std::string& mode, int victim) {
  const RankEnvironment environment = read_rank_environment();
  std::string message;
  int exit_code = kExitDone;
  {
    std::unique_ptr<Communicator> world = connect_gloo(environment, kTimeout, seconds(300));
    try {
      run_collectives(*world);
      if (mode != "run") run_until_failure(*world, mode, victim);
      world->barrier();
    } catch (const Error& error) {
      message = concat(error.what(), "\n");
      exit_code = error.exit_code();
    }
  }
  if (const char* folder = std::getenv("COMM_PROCESS_TEST_FOLDER")) {
    write_file(std::filesystem::path(folder) / std::to_string(environment.rank), message);
  } else if (!message.empty()) {
    std::fputs(message.c_str(), stderr);
  }
  return exit_code;
}

pid_t spawn_rank(int rank, int port, const std::string& folder,
                 std::vector<std::string> arguments) {
  ::setenv("RANK", std::to_string(rank).c_str(), 1);
  ::setenv("WORLD_SIZE", std::to_string(kNumRanks).c_str(), 1);
  ::setenv("MASTER_ADDR", "127.0.0.1", 1);
  ::setenv("MASTER_PORT", std::to_string(port).c_str(), 1);
  ::setenv("GLOO_SOCKET_IFNAME", "lo", 1);
  ::setenv("COMM_PROCESS_TEST_FOLDER", folder.c_str(), 1);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, argv.data(), environ);
  expect(error == 0, concat("posix_spawn: ", std::strerror(error)));
  return child;
}

// The ranks that were started. Those that still run at the end, as after a failed check, are
// killed.
class Children {
 public:
  Children() = default;
  ~Children() {
    for (size_t i = 0; i < pids_.size(); ++i) wait(i, steady_clock::now());
  }
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  void add(pid_t pid) { pids_.push_back(pid); }

  // The exit code of a child, or 128 + its signal; it is killed if it has not ended by `deadline`.
  int wait(size_t index, steady_clock::time_point deadline) {
    if (pids_[index] == 0) return 0;
    int status = 0;
    while (::waitpid(pids_[index], &status, WNOHANG) == 0) {
      if (steady_clock::now() > deadline) ::kill(pids_[index], SIGKILL);
      std::this_thread::sleep_for(milliseconds(10));
    }
    pids_[index] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  std::vector<pid_t> pids_;  // 0: has ended
};

int launch(const std::string& mode, int victim) {
  const auto folder =
      std::filesystem::temp_directory_path() / concat("moetron_comm_process_", ::getpid());
  std::filesystem::create_directories(folder);
  const int port = 20000 + ::getpid() % 20000;
  Children children;
  for (int r = 0; r < kNumRanks; ++r) {
    children.add(
        spawn_rank(r, port, folder, {"comm_process_test", "rank", mode, std::to_string(victim)}));
  }
  const auto begin = steady_clock::now();
  for (int r = 0; r < kNumRanks; ++r) {
    if (r == victim) continue;
    const int code = children.wait(r, begin + kSurvivorLimit);
    const std::string message = code < 128 ? read_file(folder / std::to_string(r)) : "";
    std::printf("rank %d ended with %d: %s", r, code, message.empty() ? "-\n" : message.c_str());
    if (mode == "run") {
      expect(code == kExitDone, concat("rank ", r, " failed"));
      continue;
    }
    expect(code == kExitInternal, concat("rank ", r, " did not end by itself with code 1"));
    const std::string start =
        concat("rank ", r, " in phase \"step 3\": all_reduce in group ", "\"world\" failed: ");
    expect(message.starts_with(start), "the message does not say where");
    const bool names_victim = message.find(concat("rank ", victim, " no longer answers"),
                                           start.size()) != std::string::npos ||
                              message.find(concat("rank ", victim, ", which serves it"),
                                           start.size()) != std::string::npos;
    // A stopped store answers nobody, so only who was waited for is known.
    const bool names_peer =
        message.find(concat("waiting for rank ", victim), start.size()) != std::string::npos;
    expect(names_victim || (mode == "stop" && victim == 0 && names_peer),
           "the message does not name the rank that failed");
  }
  std::filesystem::remove_all(folder);
  return kExitDone;
}

}  // namespace
}  // namespace moetron

int main(int argc, char** argv) {
  const std::string role = argc > 1 ? argv[1] : "rank";
  const std::string mode = argc > 2 ? argv[2] : "run";
  const int victim = argc > 3 ? std::atoi(argv[3]) : -1;
  try {
    return role == "launch" ? moetron::launch(mode, victim) : moetron::run_rank(mode, victim);
  } catch (const moetron::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
}
