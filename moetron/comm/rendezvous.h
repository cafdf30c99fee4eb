// How the processes of a run find each other: the environment that torchrun, MPI or Slurm gives
// them, and the store where they meet.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include "moetron/comm/communicator.h"
#include "moetron/comm/world_options.h"

namespace c10d {
class Store;
}

namespace moetron {

// The environment variable by which `moetron launch` names a file where the rank is to tell of a
// failure.
inline constexpr char kLaunchReport[] = "MOETRON_LAUNCH_REPORT";

struct RankEnvironment {
  int rank = 0;
  int size = 1;
  int local_rank = 0;  // among the ranks of this host: which device is mine
  int local_size = 1;
  std::string master_address;  // where rank 0 (or torchrun) serves the store; empty at size 1
  int master_port = 0;
  std::string run_id = "0";
  int restart_count = 0;
  bool agent_serves_store = false;  // torchrun serves it: every rank is a client
  int omp_num_threads = 0;          // OMP_NUM_THREADS; 0: not set
  std::string found;                // who started the ranks, and where they meet; empty: nobody
};

// The store of a run cannot be reached, or does not answer: the other ranks cannot be told either.
class StoreError : public ConfigError {
 public:
  using ConfigError::ConfigError;
};

// Looks up a variable; nullptr where it is not set. std::getenv, but for tests.
using ReadVariable = std::function<const char*(const char* name)>;

// Reads the first of: RANK and WORLD_SIZE (torchrun, `moetron launch`, or by hand),
// OMPI_COMM_WORLD_RANK (Open MPI), PMI_RANK (MPICH), SLURM_PROCID (srun; a batch script's own is
// passed over). With none of them set, this is a run of one rank. MASTER_ADDR and MASTER_PORT hold
// for all; where they are absent, Slurm's first host and a port made of the job's number, or this
// host and port 29500 if MPI says that all ranks are on it, take their place.
// Throws ConfigError, naming the variable that is missing or makes no sense, and its value.
RankEnvironment read_rank_environment();
RankEnvironment read_rank_environment(const ReadVariable& read);

// The store of this run: its keys carry run id and restart count, so that nothing left by an
// earlier start is taken for this one. From then on the process ignores SIGPIPE, unless it has a
// handler. Throws StoreError when the store cannot be reached, or does not answer, within
// `timeout`.
c10::intrusive_ptr<c10d::Store> connect_store(const RankEnvironment& environment,
                                              std::chrono::milliseconds timeout);

// The world communicator of this process: gloo over the run's store; of one rank, without network.
// Returns when all ranks have joined; reaching the store, joining and connecting a group may take
// `join_timeout` each. Afterwards a wait longer than `timeout` poisons the world. Throws
// StoreError as connect_store(), and JoinRefused as join_ranks() (join_ranks.h).
// Unless TORCH_CPP_LOG_LEVEL is set, libtorch's own log is cut to fatal errors.
std::unique_ptr<Communicator> connect_gloo(const RankEnvironment& environment,
                                           std::chrono::milliseconds timeout,
                                           std::chrono::milliseconds join_timeout,
                                           Greeting greeting = {});

// The same over NCCL on `device`, the GPU of this rank alone (nccl_communicator.h); a run of one
// rank needs no NCCL.
// Throws ConfigError also where Moetron is built without CUDA.
std::unique_ptr<Communicator> connect_nccl(const RankEnvironment& environment, c10::Device device,
                                           std::chrono::milliseconds timeout,
                                           std::chrono::milliseconds join_timeout,
                                           const NcclTuning& tuning, Greeting greeting = {});

// Instead of connecting: tells the ranks that wait for this one why it does not come. Takes some
// seconds at most; does not throw.
void refuse_to_connect(const RankEnvironment& environment, Greeting greeting, const Error& cause);

}  // namespace moetron
