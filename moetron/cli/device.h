// Where a rank computes, and how it talks to the others: what --device and --distributed-backend
// mean on this machine.
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/config/options.h"

namespace moetron {

// GPUs that this program can compute on; 0 in a build without CUDA.
int count_gpus();

// The CPU, or the GPU with number local_rank modulo their count, which where asked for must exist
// and where `kind` is auto is taken if there is one. It becomes the calling thread's current GPU.
// Throws ConfigError for --device cuda without a build with CUDA, or without a GPU.
c10::Device choose_device(DeviceKind kind, int local_rank);

// The world of this process, over NCCL where `device` is a GPU and --distributed-backend does not
// say gloo, else over gloo. Returns when all ranks have joined. Throws ConfigError for nccl on a
// CPU or with fewer GPUs than ranks on this host, and as connect_gloo() and connect_nccl().
std::unique_ptr<Communicator> connect_world(const Options& options,
                                            const RankEnvironment& environment, c10::Device device,
                                            Greeting greeting = {});

}  // namespace moetron
