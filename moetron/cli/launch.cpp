// moetron launch: starts the ranks of a run on this machine and watches them. It computes nothing
// and touches no operator of the engine, so that it is there at once.
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "moetron/base/child_processes.h"
#include "moetron/base/error.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/device.h"
#include "moetron/cli/launcher_report.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

// For ranks to leave by themselves when one has failed or the user has interrupted them. A request
// to stop has no such limit: a save takes what it takes.
constexpr std::chrono::seconds kGrace{10};
constexpr int kDefaultPort = 29500;  // torchrun's

// A port that nobody else is given while the object lives; a server that, like this one, allows
// to reuse addresses can listen there.
class FreePort {
 public:
  FreePort() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int yes = 1;
    ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    socklen_t length = sizeof(address);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    const bool is_bound = ::bind(fd_, any, length) == 0 && ::getsockname(fd_, any, &length) == 0;
    MT_CHECK_CONFIG(is_bound, "no port is free for the ranks to meet: ", std::strerror(errno));
    number_ = ntohs(address.sin_port);
  }
  ~FreePort() { ::close(fd_); }
  FreePort(const FreePort&) = delete;
  FreePort& operator=(const FreePort&) = delete;

  int number() const { return number_; }

 private:
  int fd_;
  int number_ = 0;
};

// What is the same for every start of a run.
struct Run {
  LaunchOptions options;
  ParsedCommandLine command;           // that every rank runs
  std::vector<std::string> arguments;  // the same as words, with the program's name
  fs::path program;
  int num_local = 1;
  int first_rank = 0;
  int size = 1;
};

// How one start of all ranks of this machine has ended.
struct Outcome {
  std::vector<ChildEnd> ends;      // by themselves, in order of time
  int received = 0;                // the last signal that was passed on; 0: none
  std::optional<ChildEnd> failed;  // the rank that failed first
  int failed_rank = -1;            // of all machines; -1: nobody knows
  std::optional<FailureReport> report;
};

bool is_failure(const ChildEnd& end) {
  return end.exit_code != kExitDone && end.exit_code != kExitStopped;
}

bool may_restart(int exit_code) {
  constexpr std::array kFinal = {kExitConfig, kExitCorruptInput, kExitDoNotRestart};
  return std::find(kFinal.begin(), kFinal.end(), exit_code) == kFinal.end();
}

Run make_run(const ParsedCommandLine& parsed) {
  Run run;
  run.options = parsed.options.launch;
  run.arguments = parsed.launched;
  MT_CHECK_CONFIG(!run.arguments.empty(),
                  "launch needs the command that ranks run: moetron launch -n 4 pretrain ...");
  run.arguments.insert(run.arguments.begin(), "moetron");
  std::vector<const char*> words;
  for (const std::string& word : run.arguments) words.push_back(word.c_str());
  run.command = parse_command_line(static_cast<int>(words.size()), words.data());
  if (run.command.help) return run;
  const Command command = run.command.command;
  MT_CHECK_CONFIG(has_ranks(command) || run.command.options.plan.calibrate,
                  "launch starts ranks of pretrain, sft, generate, chat or plan --calibrate; ",
                  parsed.launched[0], " is one process");
  const LaunchOptions& options = run.options;
  const bool on_cpu = run.command.options.runtime.device == DeviceKind::kCpu;
  run.num_local =
      static_cast<int>(options.nproc_per_node.value_or(on_cpu ? 1 : std::max(1, count_gpus())));
  run.size = run.num_local * static_cast<int>(options.nnodes);
  if (options.nnodes > 1) {
    std::string missing;
    if (!options.node_rank) missing = "--node-rank, which of them this is";
    if (options.master_addr.empty())
      missing +=
          concat(missing.empty() ? "" : ", and ", "--master-addr, the machine with node-rank 0");
    MT_CHECK_CONFIG(missing.empty(), "nnodes (", options.nnodes, ") needs ", missing);
  }
  const int64_t node = options.node_rank.value_or(0);
  MT_CHECK_CONFIG(node < options.nnodes, "node-rank (", node, ") must be below nnodes (",
                  options.nnodes, ")");
  run.first_rank = static_cast<int>(node) * run.num_local;
  validate(run.command.options, command, run.size);
  run.program = fs::read_symlink("/proc/self/exe");
  if (!options.log_dir.empty()) fs::create_directories(options.log_dir);
  return run;
}

fs::path log_of(const Run& run, int rank) {
  if (rank == 0 || run.options.log_dir.empty()) return {};
  return fs::path(run.options.log_dir) / concat("rank_", rank, ".log");
}

// Where a rank leaves what it knows of a failure.
fs::path report_file(const TemporaryFolder& reports, size_t local_rank) {
  return reports.path() / concat("rank_", local_rank, ".json");
}

// Compute threads are left to each rank, which takes its share of the cores.
ChildCommand rank_command(const Run& run, int local_rank, int port, int64_t restart,
                          const fs::path& report) {
  const int rank = run.first_rank + local_rank;
  const std::string& address = run.options.master_addr;
  const bool chats = run.command.command == Command::kChat;
  ChildCommand command{run.program, run.arguments, {}, log_of(run, rank), chats && rank == 0};
  command.variables = {{"RANK", std::to_string(rank)},
                       {"WORLD_SIZE", std::to_string(run.size)},
                       {"LOCAL_RANK", std::to_string(local_rank)},
                       {"LOCAL_WORLD_SIZE", std::to_string(run.num_local)},
                       {"MASTER_ADDR", address.empty() ? "127.0.0.1" : address},
                       {"MASTER_PORT", std::to_string(port)},
                       {"TORCHELASTIC_RESTART_COUNT", std::to_string(restart)},
                       {"TORCHELASTIC_RUN_ID", std::nullopt},
                       {"TORCHELASTIC_USE_AGENT_STORE", std::nullopt},
                       {"TORCHELASTIC_ERROR_FILE", std::nullopt},
                       {kLaunchReport, report.string()}};
  return command;
}

// Until all ranks have ended.
Outcome watch(ChildProcesses& ranks) {
  Outcome outcome;
  std::optional<steady_clock::time_point> deadline;
  bool has_killed = false;
  while (ranks.num_running() > 0) {
    const ChildEvent event = ranks.wait(deadline);
    if (const auto* end = std::get_if<ChildEnd>(&event)) {
      if (!has_killed) outcome.ends.push_back(*end);
      if (is_failure(*end) && !deadline) deadline = steady_clock::now() + kGrace;
    } else if (const auto* signal = std::get_if<ReceivedSignal>(&event)) {
      outcome.received = signal->number;
      ranks.send(signal->number);
      if (signal->number == SIGINT) deadline = steady_clock::now() + kGrace;
    } else {
      const bool has_failed = std::any_of(outcome.ends.begin(), outcome.ends.end(), is_failure);
      if (!has_failed) outcome.ends.push_back({0, 128 + outcome.received, outcome.received});
      has_killed = true;
      ranks.send(SIGKILL);
      deadline.reset();
    }
  }
  return outcome;
}

// A rank that was killed, or left with a code of its own, has failed before those that end with 1
// because of it, whichever was seen first; of ranks that all end with 1, they themselves know best.
void find_culprit(const Run& run, const TemporaryFolder& reports, Outcome& outcome) {
  std::vector<ChildEnd> failures;
  std::copy_if(outcome.ends.begin(), outcome.ends.end(), std::back_inserter(failures), is_failure);
  if (failures.empty()) return;
  const auto has_own_code = [](const ChildEnd& end) { return end.exit_code != kExitInternal; };
  const auto own = std::find_if(failures.begin(), failures.end(), has_own_code);
  outcome.failed = own == failures.end() ? failures.front() : *own;
  outcome.report = read_report(report_file(reports, outcome.failed->child));
  for (size_t rank = 0; !outcome.report && rank < static_cast<size_t>(run.num_local); ++rank)
    outcome.report = read_report(report_file(reports, rank));
  outcome.failed_rank = run.first_rank + static_cast<int>(outcome.failed->child);
  if (own == failures.end() && outcome.report) outcome.failed_rank = outcome.report->rank;
}

Outcome start_once(const Run& run, int64_t restart) {
  const TemporaryFolder reports("launch");
  std::optional<FreePort> free;
  if (run.options.nnodes == 1 && !run.options.master_port) free.emplace();
  // Ranks of a restart cannot meet there what an earlier start has not closed yet.
  const int64_t port =
      free ? free->number() : run.options.master_port.value_or(kDefaultPort) + restart;
  MT_CHECK_CONFIG(port <= 65'535, "master-port (", *run.options.master_port, ") and ", restart,
                  " restarts reach beyond 65535");
  ChildProcesses ranks;
  for (int local_rank = 0; local_rank < run.num_local; ++local_rank)
    ranks.start(rank_command(run, local_rank, static_cast<int>(port), restart,
                             report_file(reports, static_cast<size_t>(local_rank))));
  Outcome outcome = watch(ranks);
  find_culprit(run, reports, outcome);
  return outcome;
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name == nullptr ? concat("signal ", signal) : concat("SIG", name);
}

std::string how_it_ended(const Outcome& outcome) {
  const ChildEnd& end = *outcome.failed;
  return end.signal != 0 ? concat("killed by ", signal_name(end.signal))
                         : concat("exit code ", end.exit_code);
}

std::string which_rank(const Run& run, const Outcome& outcome) {
  return outcome.failed_rank < 0 ? concat("one of ", run.size)
                                 : concat(outcome.failed_rank, " of ", run.size);
}

// Of a rank 0 that had no time to do so.
void erase_bar() {
  if (::isatty(STDERR_FILENO) != 0) std::fputs("\r\x1b[K", stderr);
}

// The last words on the screen.
void tell_failure(const Run& run, const Outcome& outcome) {
  erase_bar();
  const ChildEnd& end = *outcome.failed;
  const auto& report = outcome.report;
  const Options& options = run.command.options;
  if (end.signal == 0 && report && report->phase.empty()) {
    say_failure(report->cause);
    return;
  }
  std::string cause = report ? report->cause : "";
  if (end.signal == SIGKILL && cause.empty())
    cause = "it was killed from outside; the system does that where memory runs out (dmesg tells)";
  if (cause.empty()) cause = "it said nothing but what stands above, or in its log";
  std::string text = failure_block(concat(which_rank(run, outcome), ", ", how_it_ended(outcome)),
                                   report && !report->phase.empty() ? report->phase : "unknown",
                                   cause, advice(options, end.exit_code));
  const fs::path log = log_of(run, outcome.failed_rank);
  if (!log.empty()) text += concat("  log     ", log.string(), "\n");
  std::fputs(text.c_str(), stderr);
}

}  // namespace

int run_launch(const ParsedCommandLine& parsed) {
  const Run run = make_run(parsed);
  if (run.command.help) {
    std::fputs(run.command.help_text.c_str(), stdout);
    return kExitDone;
  }
  for (int64_t restart = 0;; ++restart) {
    const Outcome outcome = start_once(run, restart);
    if (!outcome.failed) {
      const auto is_stopped = [](const ChildEnd& end) { return end.exit_code == kExitStopped; };
      return std::any_of(outcome.ends.begin(), outcome.ends.end(), is_stopped) ? kExitStopped
                                                                               : kExitDone;
    }
    const ChildEnd& end = *outcome.failed;
    if (outcome.received != 0 && end.signal == outcome.received) {
      erase_bar();
      const std::string where = where_to_continue(run.command.options);
      say_failure(concat("ended by ", signal_name(end.signal), where.empty() ? "" : "; ", where));
      return end.exit_code;
    }
    if (outcome.received != 0 || !may_restart(end.exit_code) ||
        restart == run.options.max_restarts) {
      tell_failure(run, outcome);
      return end.exit_code;
    }
    erase_bar();
    std::fprintf(stderr, "moetron: rank %s failed (%s): restart %lld of %lld\n",
                 which_rank(run, outcome).c_str(), how_it_ended(outcome).c_str(),
                 static_cast<long long>(restart + 1),
                 static_cast<long long>(run.options.max_restarts));
  }
}

}  // namespace moetron
