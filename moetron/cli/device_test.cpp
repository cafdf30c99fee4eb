// Device and backend as a user asks for them, on whatever machine the test runs.
#include "moetron/cli/device.h"

#include <gmock/gmock.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error_test_support.h"

namespace moetron {
namespace {

using ::testing::HasSubstr;

std::string connect_error(DistributedBackend backend, c10::Device device, int local_size) {
  Options options;
  options.runtime.distributed_backend = backend;
  RankEnvironment environment;
  environment.local_size = local_size;
  return config_error([&] {
    const auto world = connect_world(options, environment, device);
    const at::Tensor tensor = at::ones({3}, at::device(device));
    world->all_reduce(tensor).wait();
    EXPECT_EQ(tensor[2].item<float>(), 1);
  });
}

TEST(DeviceTest, TakesAGpuOnlyWhereThereIsOne) {
  EXPECT_EQ(choose_device(DeviceKind::kCpu, 3), c10::Device(c10::kCPU));
  if (!at::hasCUDA()) {
    EXPECT_EQ(choose_device(DeviceKind::kAuto, 3), c10::Device(c10::kCPU));
    EXPECT_THAT(config_error([] { choose_device(DeviceKind::kCuda, 0); }),
                HasSubstr("device (cuda) needs a"));
    return;
  }
  const int count = static_cast<int>(at::getNumGPUs());
  for (DeviceKind kind : {DeviceKind::kCuda, DeviceKind::kAuto}) {
    EXPECT_EQ(choose_device(kind, count), c10::Device(c10::kCUDA, 0));
    EXPECT_EQ(choose_device(kind, 2 * count - 1).index(), count - 1);
  }
}

TEST(DeviceTest, ALoneRankTalksToItself) {
  const c10::Device device = choose_device(DeviceKind::kAuto, 0);
  EXPECT_EQ(connect_error(DistributedBackend::kAuto, device, 1), "");
  EXPECT_EQ(connect_error(DistributedBackend::kGloo, device, 1), "");
  EXPECT_EQ(connect_error(DistributedBackend::kAuto, c10::kCPU, 1), "");
}

TEST(DeviceTest, NcclNeedsAGpuForEachRank) {
  EXPECT_EQ(connect_error(DistributedBackend::kNccl, c10::kCPU, 1),
            "distributed-backend (nccl) needs device (cpu) to be cuda");
  const std::string error =
      connect_error(DistributedBackend::kAuto, c10::Device(c10::kCUDA, 0), 10000);
#ifdef MOETRON_CUDA
  EXPECT_THAT(error, HasSubstr("needs a GPU for each of the 10000 ranks of this host"));
#else
  EXPECT_EQ(error, "distributed-backend nccl needs a build with CUDA (make cuda)");
#endif
}

}  // namespace
}  // namespace moetron
