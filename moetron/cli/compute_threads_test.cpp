#include "moetron/cli/compute_threads.h"

#include <cstdlib>
#include <gmock/gmock.h>
#include <thread>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace moetron {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ComputeThreadsTest : public ::testing::Test {
 protected:
  void TearDown() override {
    ::unsetenv("TORCHELASTIC_RUN_ID");
    at::set_num_threads(before_);
  }
  Options options_;
  RankEnvironment environment_;

 private:
  const int before_ = at::get_num_threads();
};

TEST_F(ComputeThreadsTest, TheOptionIsAboveTheVariableAndThatAboveTheShare) {
  environment_.local_size = 1'000'000;  // more ranks than any host has cores
  EXPECT_EQ(set_compute_threads(options_, environment_),
            "1 compute thread a rank: its share of the cores");
  environment_.omp_num_threads = 2;
  EXPECT_EQ(set_compute_threads(options_, environment_),
            "2 compute threads a rank: OMP_NUM_THREADS");
  EXPECT_EQ(at::get_num_threads(), 2);
  options_.runtime.num_threads = 3;
  EXPECT_EQ(set_compute_threads(options_, environment_), "3 compute threads a rank: --num-threads");
  EXPECT_EQ(at::get_num_threads(), 3);
}

TEST_F(ComputeThreadsTest, WhatTorchrunSetsByItselfIsSaid) {
  environment_.omp_num_threads = 1;
  ::setenv("TORCHELASTIC_RUN_ID", "x", /*overwrite=*/1);
  const std::string said = set_compute_threads(options_, environment_, /*num_gpus=*/0);
  EXPECT_THAT(said, StartsWith("1 compute thread a rank: OMP_NUM_THREADS"));
  if (std::thread::hardware_concurrency() == 1) return;
  EXPECT_THAT(said, AllOf(HasSubstr("torchrun"), HasSubstr("share of the cores is")));
  const std::string on_gpu = set_compute_threads(options_, environment_, /*num_gpus=*/1);
  EXPECT_THAT(on_gpu, AllOf(HasSubstr("its share of the cores"), HasSubstr("torchrun")));
  EXPECT_EQ(at::get_num_threads(), static_cast<int>(std::thread::hardware_concurrency()));
  options_.runtime.device = DeviceKind::kCpu;
  EXPECT_EQ(set_compute_threads(options_, environment_, /*num_gpus=*/1), said);
}

}  // namespace
}  // namespace moetron
