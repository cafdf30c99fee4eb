#include "moetron/comm/rendezvous.h"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "moetron/comm/gloo_communicator.h"
#include "moetron/comm/join_ranks.h"
#include "moetron/comm/nccl_communicator.h"
#include "moetron/comm/thread_communicator.h"

namespace moetron {
namespace {

// c10d logs each connection that breaks or is refused, with a stack trace. All of it comes to us as
// exceptions, which we report in a line.
constexpr int kLogFatalOnly = 3;

// What a rank that cannot start spends on telling the others.
constexpr std::chrono::seconds kRefusalTime{10};

// A launcher's names for itself and for what we ask.
struct Launcher {
  const char* name;
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};
constexpr Launcher kLaunchers[] = {
    {"the environment", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"MPI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"},
};
constexpr const Launcher& kSlurm = kLaunchers[3];

constexpr int kDefaultPort = 29500;  // torchrun's

// What a number may be. A machine with more ranks or threads than these is a slip of the keyboard.
struct Bounds {
  int least = 0;
  int most = 0;
};
constexpr Bounds kRankBounds{0, 9'999'999};
constexpr Bounds kSizeBounds{1, 10'000'000};
constexpr Bounds kThreadBounds{1, 100'000};
constexpr Bounds kPortBounds{1, 65'535};
constexpr Bounds kAnyCount{0, 2'147'483'647};

class Variables {
 public:
  explicit Variables(const ReadVariable& read) : read_(read) {}

  bool has(const char* name) const { return read_(name) != nullptr; }

  std::string text(const char* name, const std::string& fallback) const {
    const char* value = read_(name);
    return value ? value : fallback;
  }

  // With `takes_list` the first of "4,2", as OMP_NUM_THREADS may be for nested levels.
  int number(const char* name, Bounds bounds, bool takes_list = false) const {
    const char* value = read_(name);
    MT_CHECK_CONFIG(value, "the environment variable ", name, " is missing");
    int number = 0;
    const char* comma = takes_list ? std::strchr(value, ',') : nullptr;
    const char* end = comma != nullptr ? comma : value + std::strlen(value);
    const auto [rest, error] = std::from_chars(value, end, number);
    const bool is_sound =
        error == std::errc() && rest == end && number >= bounds.least && number <= bounds.most;
    MT_CHECK_CONFIG(is_sound, "the environment variable ", name, " (\"", value,
                    "\") is not a whole number from ", bounds.least, " to ", bounds.most);
    return number;
  }

  int number_or(int fallback, const char* name, Bounds bounds) const {
    return has(name) ? number(name, bounds) : fallback;
  }

 private:
  const ReadVariable& read_;
};

// The first host of "gpu[07-09,12],login1": gpu07.
std::string first_host(const std::string& list) {
  const size_t end = list.find_first_of(",[");
  if (end == std::string::npos || list[end] == ',') return list.substr(0, end);
  const size_t number_end = list.find_first_of("-,]", end + 1);
  return list.substr(0, end) + list.substr(end + 1, number_end - end - 1);
}

// How many ranks Slurm starts on host `node` by a list like "2(x3),1": two on each of three hosts.
int tasks_on_node(const char* name, const std::string& list, int node) {
  const char* next = list.c_str();
  const char* end = next + list.size();
  const auto read = [&](int& number) {
    const auto [rest, error] = std::from_chars(next, end, number);
    next = rest;
    return error == std::errc() && number > 0;
  };
  const auto skip = [&](const char* text) {
    const bool is_there = std::string_view(next).starts_with(text);
    if (is_there) next += std::strlen(text);
    return is_there;
  };
  for (int tasks = 0, hosts = 1; read(tasks); hosts = 1) {
    if (skip("(x") && !(read(hosts) && skip(")"))) break;
    if (node < hosts) return std::min(tasks, kSizeBounds.most);
    node -= hosts;
    if (!skip(",")) break;
  }
  throw ConfigError(concat("the environment variable ", name, " (\"", list,
                           "\") does not tell the ranks of this host"));
}

// A host cannot hold more ranks than there are, nor one that it does not count.
void read_local(const Variables& variables, const Launcher& launcher,
                RankEnvironment& environment) {
  environment.local_rank = variables.number_or(0, launcher.local_rank, kRankBounds);
  constexpr const char* kSlurmTasks = "SLURM_STEP_TASKS_PER_NODE";
  if (&launcher == &kSlurm && variables.has(kSlurmTasks)) {
    const int node = variables.number_or(0, "SLURM_NODEID", kRankBounds);
    environment.local_size = tasks_on_node(kSlurmTasks, variables.text(kSlurmTasks, ""), node);
    return;
  }
  if (!variables.has(launcher.local_size)) return;
  environment.local_size = variables.number(launcher.local_size, kSizeBounds);
  if (&launcher == &kSlurm) {  // Slurm's is a bound, of hosts that may be fuller
    environment.local_size = std::min(environment.local_size, environment.size);
    return;
  }
  MT_CHECK_CONFIG(environment.local_size <= environment.size, launcher.local_size, " (",
                  environment.local_size, ") must be at most ", launcher.size, " (",
                  environment.size, ")");
  MT_CHECK_CONFIG(environment.local_rank < environment.local_size, launcher.local_rank, " (",
                  environment.local_rank, ") must be below ", launcher.local_size, " (",
                  environment.local_size, ")");
}

void find_master(const Variables& variables, RankEnvironment& environment) {
  environment.master_address = variables.text("MASTER_ADDR", "");
  if (environment.master_address.empty()) {
    if (variables.has("SLURM_STEP_NODELIST") || variables.has("SLURM_JOB_NODELIST")) {
      environment.master_address = first_host(
          variables.text("SLURM_STEP_NODELIST", variables.text("SLURM_JOB_NODELIST", "")));
    } else if (!variables.has("RANK") && environment.local_size == environment.size) {
      environment.master_address = "127.0.0.1";
    }
  }
  MT_CHECK_CONFIG(!environment.master_address.empty(),
                  "the environment variable MASTER_ADDR is missing: the host where rank 0 of ",
                  environment.size, " runs");
  if (!variables.has("MASTER_PORT") && variables.has("SLURM_JOB_ID")) {
    environment.master_port = 20000 + variables.number("SLURM_JOB_ID", kAnyCount) % 10000;
  } else if (!variables.has("MASTER_PORT") && !variables.has("RANK")) {
    environment.master_port = kDefaultPort;
  } else {
    environment.master_port = variables.number("MASTER_PORT", kPortBounds);
  }
}

std::string describe(const Variables& variables, const Launcher& launcher,
                     const RankEnvironment& environment) {
  std::string name = launcher.name;
  if (variables.has("TORCHELASTIC_RUN_ID")) name = "torchrun";
  if (variables.has(kLaunchReport)) name = "moetron launch";
  std::string text = concat(environment.size, environment.size == 1 ? " rank" : " ranks", " by ",
                            name, " (", launcher.rank, "), ", environment.local_size, " here");
  if (environment.size > 1)
    text += concat("; they meet at ", environment.master_address, ":", environment.master_port);
  return text;
}

// A rank that dies closes connections that others write to. Neither Gloo nor the store's server
// asks for an error in place of the signal, which would end the writer without a word.
void ignore_broken_pipes() {
  struct sigaction current;
  ::sigaction(SIGPIPE, nullptr, &current);
  if (current.sa_handler == SIG_DFL) ::signal(SIGPIPE, SIG_IGN);
}

WorldOptions make_world_options(const RankEnvironment& environment,
                                std::chrono::milliseconds timeout,
                                std::chrono::milliseconds join_timeout, Greeting greeting) {
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = kLogFatalOnly;
  WorldOptions options;
  options.store = connect_store(environment, join_timeout);
  options.rank = environment.rank;
  options.size = environment.size;
  options.timeout = timeout;
  options.join_timeout = join_timeout;
  options.agent_serves_store = environment.agent_serves_store;
  options.serves_store = environment.rank == 0 && !environment.agent_serves_store;
  options.greeting = std::move(greeting);
  return options;
}

}  // namespace

RankEnvironment read_rank_environment() {
  return read_rank_environment([](const char* name) -> const char* { return std::getenv(name); });
}

RankEnvironment read_rank_environment(const ReadVariable& read) {
  const Variables variables(read);
  RankEnvironment environment;
  const Launcher* found = nullptr;
  for (const Launcher& launcher : kLaunchers) {
    // WORLD_SIZE alone is a torchrun environment that lost its RANK.
    if (!variables.has(launcher.rank) && !variables.has(launcher.size)) continue;
    // Slurm gives a batch script the number of tasks, too, and rank 0, but it is no step of srun.
    if (&launcher == &kSlurm && !variables.has("SLURM_STEP_ID")) {
      environment.found = "one rank: in a Slurm job, srun starts one for each task";
      continue;
    }
    found = &launcher;
    environment.rank = variables.number(launcher.rank, kRankBounds);
    environment.size = variables.number(launcher.size, kSizeBounds);
    MT_CHECK_CONFIG(environment.rank < environment.size, launcher.rank, " (", environment.rank,
                    ") must be below ", launcher.size, " (", environment.size, ")");
    read_local(variables, launcher, environment);
    break;
  }
  environment.run_id = variables.text("TORCHELASTIC_RUN_ID", variables.text("SLURM_JOB_ID", "0"));
  environment.restart_count = variables.number_or(0, "TORCHELASTIC_RESTART_COUNT", kAnyCount);
  environment.agent_serves_store =
      variables.has("TORCHELASTIC_RUN_ID") &&
      variables.text("TORCHELASTIC_USE_AGENT_STORE", "False") == "True";
  if (environment.size > 1) find_master(variables, environment);
  if (found != nullptr) environment.found = describe(variables, *found, environment);
  if (variables.has("OMP_NUM_THREADS")) {
    environment.omp_num_threads =
        variables.number("OMP_NUM_THREADS", kThreadBounds, /*takes_list=*/true);
  }
  return environment;
}

c10::intrusive_ptr<c10d::Store> connect_store(const RankEnvironment& environment,
                                              std::chrono::milliseconds timeout) {
  ignore_broken_pipes();
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(environment.master_port);
  options.isServer = environment.rank == 0 && !environment.agent_serves_store;
  options.waitWorkers = false;
  options.timeout = timeout;
  const std::string place =
      concat("rank ", environment.rank, " cannot ", options.isServer ? "serve" : "reach",
             " the store at MASTER_ADDR (", environment.master_address, "), MASTER_PORT (",
             environment.master_port, "): ");
  // c10d waits without end for the first word of a server that accepts and says nothing, so a
  // thread waits in our place, and is left behind.
  std::promise<c10::intrusive_ptr<c10d::TCPStore>> promise;
  auto future = promise.get_future();
  std::thread([address = environment.master_address, options,
               connected = std::move(promise)]() mutable {
    try {
      connected.set_value(c10::make_intrusive<c10d::TCPStore>(address, options));
    } catch (...) {
      connected.set_exception(std::current_exception());
    }
  }).detach();
  const std::chrono::duration<double> seconds = timeout;
  if (future.wait_for(timeout) != std::future_status::ready) {
    throw StoreError(
        concat(place, "what listens there has not answered for ", seconds.count(), " s"));
  }
  try {
    return c10::make_intrusive<c10d::PrefixStore>(
        concat("moetron/", environment.run_id, "/", environment.restart_count), future.get());
  } catch (const std::exception& error) {
    throw StoreError(place + first_line(error));
  }
}

void refuse_to_connect(const RankEnvironment& environment, Greeting greeting, const Error& cause) {
  if (environment.size == 1) return;
  try {
    refuse_to_join(make_world_options(environment, kRefusalTime, kRefusalTime, std::move(greeting)),
                   cause);
  } catch (const StoreError&) {
    return;  // nobody can be told
  }
}

std::unique_ptr<Communicator> connect_gloo(const RankEnvironment& environment,
                                           std::chrono::milliseconds timeout,
                                           std::chrono::milliseconds join_timeout,
                                           Greeting greeting) {
  if (environment.size == 1) return join_thread_world(make_thread_world(1, timeout), 0);
  return make_gloo_world(
      make_world_options(environment, timeout, join_timeout, std::move(greeting)));
}

#ifdef MOETRON_CUDA
std::unique_ptr<Communicator> connect_nccl(const RankEnvironment& environment, c10::Device device,
                                           std::chrono::milliseconds timeout,
                                           std::chrono::milliseconds join_timeout,
                                           const NcclTuning& tuning, Greeting greeting) {
  if (environment.size == 1) return join_thread_world(make_thread_world(1, timeout), 0);
  NcclOptions options;
  options.world = make_world_options(environment, timeout, join_timeout, std::move(greeting));
  options.device = device;
  options.tuning = tuning;
  return make_nccl_world(options);
}
#else
std::unique_ptr<Communicator> connect_nccl(const RankEnvironment&, c10::Device,
                                           std::chrono::milliseconds, std::chrono::milliseconds,
                                           const NcclTuning&, Greeting) {
  throw ConfigError("distributed-backend nccl needs a build with CUDA (make cuda)");
}
#endif

}  // namespace moetron
