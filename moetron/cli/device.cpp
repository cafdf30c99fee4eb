#include "moetron/cli/device.h"

#include <chrono>
#include <utility>

#ifdef MOETRON_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

#include "moetron/base/error.h"

namespace moetron {

#ifdef MOETRON_CUDA
int count_gpus() {
  return c10::cuda::device_count();
}
#else
int count_gpus() {
  return 0;
}
#endif

namespace {

#ifdef MOETRON_CUDA
c10::Device use_gpu(int local_rank) {
  const auto number = static_cast<c10::DeviceIndex>(local_rank % count_gpus());
  c10::cuda::set_device(number);
  return c10::Device(c10::kCUDA, number);
}
#endif

}  // namespace

#ifdef MOETRON_CUDA
c10::Device choose_device(DeviceKind kind, int local_rank) {
  if (kind == DeviceKind::kCpu) return c10::kCPU;
  if (count_gpus() > 0) return use_gpu(local_rank);
  MT_CHECK_CONFIG(kind == DeviceKind::kAuto,
                  "device (cuda) needs a GPU, and this machine shows none: is a driver installed, "
                  "and does CUDA_VISIBLE_DEVICES name one?");
  return c10::kCPU;
}
#else
c10::Device choose_device(DeviceKind kind, int) {
  MT_CHECK_CONFIG(kind != DeviceKind::kCuda, "device (cuda) needs a build with CUDA (make cuda)");
  return c10::kCPU;
}
#endif

std::unique_ptr<Communicator> connect_world(const Options& options,
                                            const RankEnvironment& environment, c10::Device device,
                                            Greeting greeting) {
  const RuntimeOptions& runtime = options.runtime;
  const auto timeout = std::chrono::milliseconds(static_cast<int64_t>(runtime.comm_timeout * 1000));
  const DistributedBackend backend = runtime.distributed_backend;
  MT_CHECK_CONFIG(backend != DistributedBackend::kNccl || device.is_cuda(),
                  "distributed-backend (nccl) needs device (", device, ") to be cuda");
  if (backend == DistributedBackend::kGloo || !device.is_cuda()) {
    return connect_gloo(environment, timeout, timeout, std::move(greeting));
  }
#ifdef MOETRON_CUDA
  MT_CHECK_CONFIG(environment.local_size <= count_gpus(), "distributed-backend (nccl) needs a GPU ",
                  "for each of the ", environment.local_size, " ranks of this host, which has ",
                  count_gpus(), ": start fewer ranks, or set distributed-backend to gloo");
#endif
  const NcclTuning tuning{.max_ctas = static_cast<int>(runtime.nccl_max_ctas),
                          .peer_copies = runtime.peer_copies};
  return connect_nccl(environment, device, timeout, timeout, tuning, std::move(greeting));
}

}  // namespace moetron
