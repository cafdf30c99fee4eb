// Child processes that are started together and watched until the last of them has ended.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <signal.h>
#include <string>
#include <variant>
#include <vector>

namespace moetron {

struct ChildCommand {
  std::filesystem::path program;
  std::vector<std::string> arguments;  // with the program's name in front
  // What differs from our own environment; without a value: not set.
  std::map<std::string, std::optional<std::string>> variables;
  std::filesystem::path log;  // what it prints is appended there; empty: it goes where ours goes
  bool takes_input = false;   // reads what we would: from a terminal, too, as one of our group
};

struct ChildEnd {
  size_t child = 0;   // in the order of start()
  int exit_code = 0;  // 128 + the signal's number where one ended it, as a shell has it
  int signal = 0;     // 0: it left by itself
};

struct ReceivedSignal {
  int number = 0;
};

struct DeadlinePassed {};

using ChildEvent = std::variant<ChildEnd, ReceivedSignal, DeadlinePassed>;

// Each child leads a process group of its own and reads nothing, but the one that takes the input,
// and is killed when this process ends in whatever way. While the object lives, SIGINT, SIGTERM and
// SIGUSR1 are events of wait() and do nothing else; no other thread of the process may run then.
class ChildProcesses {
 public:
  ChildProcesses();
  ~ChildProcesses();  // kills what still runs
  ChildProcesses(const ChildProcesses&) = delete;
  ChildProcesses& operator=(const ChildProcesses&) = delete;

  // Throws ConfigError where a log cannot be written or the system starts no further process.
  void start(const ChildCommand& command);

  // The next end of a child or signal; DeadlinePassed where none comes before `deadline`.
  ChildEvent wait(std::optional<std::chrono::steady_clock::time_point> deadline);

  // To every child that still runs, and to whatever it has started.
  void send(int signal) const;

  size_t num_running() const;

 private:
  std::optional<ChildEnd> reap();

  sigset_t signals_{};          // that wait() waits for
  sigset_t mask_before_{};      // which children get
  std::vector<pid_t> targets_;  // of signals, as kill() takes them; 0: has ended
};

}  // namespace moetron
