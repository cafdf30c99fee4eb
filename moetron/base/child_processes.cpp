#include "moetron/base/child_processes.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "moetron/base/error.h"

extern char** environ;

namespace moetron {
namespace {

constexpr int kCannotStart = 127;  // as a shell has it

// Pointers into `texts`, and the null behind them that execve() asks for.
std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> changed_environment(
    const std::map<std::string, std::optional<std::string>>& variables) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!variables.contains(text.substr(0, text.find('=')))) result.push_back(text);
  }
  for (const auto& [name, value] : variables)
    if (value) result.push_back(concat(name, "=", *value));
  return result;
}

int open_or_throw(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  MT_CHECK_CONFIG(fd >= 0, "cannot write ", path.string(), ": ", std::strerror(errno));
  return fd;
}

// All between fork() and execve(), where nothing may allocate.
struct Start {
  const char* program;
  char** arguments;
  char** environment;
  int input, output;  // -1: ours
  pid_t parent;
  const sigset_t* mask;
};

[[noreturn]] void become(const Start& start) {
  if (start.input >= 0) ::setpgid(0, 0);  // a terminal lets only its group in front read
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != start.parent) ::_exit(kCannotStart);  // it has died before it was asked for
  if (start.input >= 0) ::dup2(start.input, STDIN_FILENO);
  if (start.output >= 0) {
    ::dup2(start.output, STDOUT_FILENO);
    ::dup2(start.output, STDERR_FILENO);
  }
  ::sigprocmask(SIG_SETMASK, start.mask, nullptr);
  ::execve(start.program, start.arguments, start.environment);
  ::_exit(kCannotStart);
}

}  // namespace

ChildProcesses::ChildProcesses() {
  ::sigemptyset(&signals_);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) ::sigaddset(&signals_, signal);
  ::sigprocmask(SIG_BLOCK, &signals_, &mask_before_);
}

ChildProcesses::~ChildProcesses() {
  send(SIGKILL);
  for (const pid_t target : targets_)
    if (target != 0) ::waitpid(std::abs(target), nullptr, 0);
  ::sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
}

void ChildProcesses::start(const ChildCommand& command) {
  std::vector<std::string> arguments = command.arguments;
  std::vector<std::string> environment = changed_environment(command.variables);
  std::vector<char*> argument_pointers = pointers_to(arguments);
  std::vector<char*> environment_pointers = pointers_to(environment);
  const int input = command.takes_input ? -1 : open_or_throw("/dev/null", O_RDONLY);
  const int output =
      command.log.empty() ? -1 : open_or_throw(command.log, O_WRONLY | O_CREAT | O_APPEND);
  const Start start{command.program.c_str(),
                    argument_pointers.data(),
                    environment_pointers.data(),
                    input,
                    output,
                    ::getpid(),
                    &mask_before_};
  const pid_t process = ::fork();
  if (process == 0) become(start);
  const int error = errno;
  if (input >= 0) ::close(input);
  if (output >= 0) ::close(output);
  MT_CHECK_CONFIG(process > 0, "cannot start another process: ", std::strerror(error));
  if (!command.takes_input) ::setpgid(process, process);  // as the child: whoever comes first
  targets_.push_back(command.takes_input ? process : -process);
}

std::optional<ChildEnd> ChildProcesses::reap() {
  for (size_t i = 0; i < targets_.size(); ++i) {
    if (targets_[i] == 0) continue;
    const pid_t process = std::abs(targets_[i]);
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(process), &info, WEXITED | WNOHANG | WNOWAIT);
    if (info.si_pid == 0) continue;
    // What its group has left running; the group's number is still its own.
    ::kill(targets_[i], SIGKILL);
    int status = 0;
    ::waitpid(process, &status, 0);
    targets_[i] = 0;
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return ChildEnd{i, signal != 0 ? 128 + signal : WEXITSTATUS(status), signal};
  }
  return std::nullopt;
}

ChildEvent ChildProcesses::wait(std::optional<std::chrono::steady_clock::time_point> deadline) {
  constexpr std::chrono::nanoseconds kForever = std::chrono::hours(1);
  while (true) {
    if (const auto end = reap()) return *end;
    std::chrono::nanoseconds left = kForever;
    if (deadline)
      left = std::min(left, std::chrono::nanoseconds(*deadline - std::chrono::steady_clock::now()));
    if (left.count() <= 0) return DeadlinePassed();
    const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
    const timespec limit{seconds.count(), (left - seconds).count()};
    const int signal = ::sigtimedwait(&signals_, nullptr, &limit);
    if (signal > 0 && signal != SIGCHLD) return ReceivedSignal{signal};
  }
}

void ChildProcesses::send(int signal) const {
  for (const pid_t target : targets_)
    if (target != 0) ::kill(target, signal);
}

size_t ChildProcesses::num_running() const {
  return targets_.size() -
         static_cast<size_t>(std::count(targets_.begin(), targets_.end(), pid_t{0}));
}

}  // namespace moetron
