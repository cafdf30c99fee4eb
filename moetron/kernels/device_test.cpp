#include "moetron/kernels/device.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace moetron {
namespace {

TEST(Device, RowsAreAlignedWhenSizeAndAddressAre) {
  const at::Tensor x = at::zeros({4, 64}, at::kBFloat16);
  EXPECT_TRUE(has_aligned_rows(x, 64));
  EXPECT_FALSE(has_aligned_rows(x, 63));
  EXPECT_FALSE(has_aligned_rows(x.narrow(1, 1, 63), 64));
}

TEST(Device, NoTensorOfTheCpuIsOnAGpu) {
  EXPECT_FALSE(is_gpu_bf16(at::zeros({1}, at::kBFloat16)));
}

}  // namespace
}  // namespace moetron
