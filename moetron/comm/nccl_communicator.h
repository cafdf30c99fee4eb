// Ranks as processes with a GPU each, over c10d's NCCL process group. Of builds with CUDA only.
//
// What differs from the other backends:
// - Operations of one communicator run one after the other, in the order of issue, messages too.
//   Two ranks that send to each other must do so between group_begin() and group_end().
// - NCCL knows no tags: messages of a pair meet in the order of issue, whatever their tags.
// - Reductions add in NCCL's order: the same bits on every rank, but not those of gloo. Where GPUs
//   write to each other's memory (tuning.peer_copies), reduce_scatter adds as gloo does if it is
//   large; all_gather, too, and all_to_all_v of any size are then done beside what NCCL does.
// - Tensors of a CPU are welcome, for counts and the like: they travel by the GPU, and wait()
// blocks
//   the host until the operation is done.
// - Operations between group_begin() and group_end() start at group_end().
//
// Failure: wait() returns long before its operation is done, so a thread of ours watches. It
// reports an operation that is not done in time, or an error of NCCL, to all ranks
// (process_world.h) and ends what is under way on the GPU. Then every wait() and call throws
// CommError; until the next of them, values read from the GPU may be garbage. c10d's own watchdog
// is set to end no process (TORCH_NCCL_ASYNC_ERROR_HANDLING and TORCH_NCCL_RETHROW_CUDA_ERRORS,
// both 0).
#pragma once

#include <memory>

#include <c10/core/Device.h>

#include "moetron/comm/communicator.h"
#include "moetron/comm/world_options.h"

namespace moetron {

struct NcclOptions {
  WorldOptions world;
  c10::Device device = c10::Device(c10::kCUDA, 0);  // with its number; of this rank alone
  NcclTuning tuning;
  bool nccl_for_one =
      false;  // else a group of one rank copies, on the current stream, without NCCL
};

// Returns when all ranks have joined and NCCL has connected them. Groups are connected when they
// are made, which their members must do in one order. Throws ConfigError for ranks that never came,
// came twice, or count another world size, and CommError where NCCL fails.
std::unique_ptr<Communicator> make_nccl_world(const NcclOptions& options);

}  // namespace moetron
