// How many threads a rank computes with, and what they do while they wait.
#pragma once

#include <string>

#include "moetron/cli/device.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/config/options.h"

namespace moetron {

// The OpenMP threads of libtorch spin at the end of every operation, for milliseconds, until all
// have come: on a machine with other work, those that spin hold up the one that they wait for. How
// long is read from the environment before main() begins, so the program starts itself again once,
// with GOMP_SPINCOUNT set, unless the user has set it or OMP_WAIT_POLICY. Returns where that is
// done, or cannot be done.
void let_waiting_threads_sleep(char** argv);

// Sets the number of compute threads: --num-threads, else OMP_NUM_THREADS, else an equal share of
// the host's cores. The one thread that torchrun asks for, unasked, is not taken where GPUs compute
// (`num_gpus`: how many there are), for fresh weights are made by the host, and a GPU waits for
// them. Returns a line that says which.
std::string set_compute_threads(const Options& options, const RankEnvironment& environment,
                                int num_gpus = count_gpus());

}  // namespace moetron
