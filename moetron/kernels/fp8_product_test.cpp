#include "moetron/kernels/fp8_product.h"

#include <numeric>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

// On numbers of order 1: each factor is a 2.7 % off at most (fp8_test.cpp), and their errors add up
// as squares.
constexpr double kFp8Error = 0.05;
constexpr double kProductE5m2Error = 0.08;  // one of the factors
constexpr double kProductBf16Error = 4e-3;
// A GPU's tensor cores keep about 14 bits of each 128 products' sum.
constexpr double kHopperError = 4e-4;

at::Tensor wide(const at::Tensor& x) {
  return x.to(at::kDouble);
}

at::Tensor not_a_number(at::IntArrayRef sizes, at::Device device) {
  return at::full(sizes, std::numeric_limits<float>::quiet_NaN(), at::TensorOptions(device));
}

Fp8Rows on_host(const Fp8Rows& x) {
  return {x.values.cpu(), x.scales.cpu()};
}

Fp8Blocks on_host(const Fp8Blocks& x) {
  return {x.values.cpu(), x.scales.cpu()};
}

constexpr at::ScalarType kFactorType = at::kFloat8_e4m3fn;

std::vector<at::ScalarType> types_on(at::Device device) {
  if (device.is_cuda()) return {kFactorType};
  return {kFactorType, at::kFloat8_e5m2};
}

Fp8Blocks columns_of_one(const at::Tensor& x) {
  return columns_of(quantise_rows(x, kFactorType)).blocks;
}

struct Sizes {
  int64_t rows, out, in;
};

void check_product(const Sizes& sizes, at::Device device) {
  const auto options = at::TensorOptions(device);
  const at::Tensor x = at::randn({sizes.rows, sizes.in}, options);
  const at::Tensor weight = at::randn({sizes.out, sizes.in}, options);
  for (const at::ScalarType dtype : types_on(device)) {
    const Fp8Rows rows = quantise_rows(x, dtype);
    const auto [blocks, turned] = quantise_weight(weight, kFactorType);
    const at::Tensor y = fp8_product(rows, blocks);
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    const at::Tensor same = wide(dequantise(rows)).matmul(wide(dequantise(blocks)).t());
    const double error = relative_error(y, wide(x).matmul(wide(weight).t()));
    std::printf("[%ld, %ld] -> %ld, x in %s: relative error %.4f, of the quantised %.1e\n",
                sizes.rows, sizes.in, sizes.out, at::toString(dtype), error,
                relative_error(y, same));
    if (y.numel() >= 1000) {  // of few numbers it is more of chance
      EXPECT_LT(error, dtype == kFactorType ? kFp8Error : kProductE5m2Error);
    }
    EXPECT_LT(relative_error(y, same), kProductBf16Error);
    const Fp8Rows d_y = quantise_rows(y, dtype);
    const at::Tensor d_x = fp8_product(d_y, turned);
    EXPECT_LT(relative_error(d_x, wide(dequantise(d_y)).matmul(wide(dequantise(blocks)))),
              kProductBf16Error);
    if (device.is_cuda()) {
      EXPECT_LT(relative_error(y, fp8_product(on_host(rows), on_host(blocks))), kProductBf16Error);
    }
  }
}

TEST(Fp8ProductOnCpu, IsThatOfTheNumbers) {
  for (const Sizes& sizes : {Sizes{5, 7, 130}, Sizes{64, 200, 576}, Sizes{33, 576, 256}}) {
    check_product(sizes, at::kCPU);
  }
}

TEST(Fp8ProductOnCpu, HasAScaleForEvery128) {
  const at::Tensor x = at::ones({2, 256}), weight = at::ones({1, 256});
  x.narrow(1, 128, 128).mul_(0x1p-20);
  weight.narrow(1, 128, 128).mul_(0x1p20);
  const at::Tensor y =
      fp8_product(quantise_rows(x, kFactorType), quantise_blocks(weight, kFactorType));
  EXPECT_TRUE(y.eq(256).all().item<bool>());
}

TEST(Fp8ProductOnCpu, WhatIsNotFiniteReachesWhatItGoesInto) {
  const at::Tensor x = at::randn({4, 256});
  x[2][200] = std::numeric_limits<float>::infinity();
  const at::Tensor y =
      fp8_product(quantise_rows(x, kFactorType), quantise_blocks(at::randn({9, 256}), kFactorType));
  EXPECT_TRUE(y[2].isnan().all().item<bool>());
  EXPECT_EQ(y.isnan().sum().item<int64_t>(), 9);
}

at::Tensor ends_of(const std::vector<int64_t>& counts, at::Device device) {
  std::vector<int32_t> sums(counts.size());
  std::partial_sum(counts.begin(), counts.end(), sums.begin());
  return at::tensor(sums, at::kInt).to(device);
}

// Rows behind the last group hold NaN.
void check_groups(const std::vector<int64_t>& counts, int64_t out, int64_t in, at::Device device) {
  const auto options = at::TensorOptions(device);
  const auto num_groups = static_cast<int64_t>(counts.size());
  const int64_t rows = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const at::Tensor ends = ends_of(counts, device);
  const at::Tensor x = at::randn({rows + 5, in}, options),
                   d_y = at::randn({rows + 5, out}, options);
  x.narrow(0, rows, 5).fill_(std::numeric_limits<float>::quiet_NaN());
  const Fp8Rows quantised = quantise_rows(x, kFactorType);
  const Fp8Blocks weight = quantise_blocks(at::randn({num_groups, out, in}, options), kFactorType);
  const at::Tensor y = fp8_grouped_rows_product(quantised, weight, ends);
  const Fp8Columns x_columns = columns_of(quantised, ends);
  const Fp8Columns d_y_columns = columns_of(quantise_rows(d_y, kFactorType), ends);
  const at::Tensor sum = not_a_number({num_groups, out, in}, device);
  fp8_grouped_weight_grad_product(sum, d_y_columns, x_columns, /*adds=*/false);
  const at::Tensor once = sum.clone();
  fp8_grouped_weight_grad_product(sum, d_y_columns, x_columns, /*adds=*/true);
  int64_t first = 0;
  for (int64_t group = 0; group < num_groups; ++group) {
    const int64_t count = counts[group];
    const at::Tensor part = wide(dequantise(quantised)).narrow(0, first, count);
    const at::Tensor matrix = wide(dequantise(weight))[group];
    EXPECT_LT(relative_error(y.narrow(0, first, count), part.matmul(matrix.t())), kProductBf16Error)
        << "group " << group;
    const auto columns = [&](const at::Tensor& all) {
      return wide(dequantise(columns_of_one(all.narrow(0, first, count))));
    };
    const at::Tensor grad = columns(d_y).matmul(columns(x).t());
    EXPECT_LT(relative_error(once[group], grad), kHopperError) << "group " << group;
    EXPECT_LT(relative_error(sum[group], grad.mul(2)), kHopperError) << "group " << group;
    if (count > 200) {
      const at::Tensor exact =
          wide(d_y.narrow(0, first, count)).t().matmul(wide(x.narrow(0, first, count)));
      EXPECT_LT(relative_error(once[group], exact), kFp8Error);
    }
    first += count;
  }
}

TEST(Fp8GroupsOnCpu, AreEachGroupsProducts) {
  check_groups({0, 1, 63, 64, 0, 65, 300, 7, 0}, 24, 200, at::kCPU);
  check_groups({130}, 8, 16, at::kCPU);
}

void check_weight_grad(const Sizes& sizes, at::Device device) {
  const auto options = at::TensorOptions(device);
  const at::Tensor d_y = at::randn({sizes.rows, sizes.out}, options);
  const at::Tensor x = at::randn({sizes.rows, sizes.in}, options);
  const Fp8Blocks a = columns_of_one(d_y), b = columns_of_one(x);
  const at::Tensor same = wide(dequantise(a)).matmul(wide(dequantise(b)).t());
  const at::Tensor sum = not_a_number({sizes.out, sizes.in}, device);
  for (int call = 0; call < 3; ++call) {  // cuBLASLt tries its algorithms at the second
    fp8_weight_grad_product(sum, a, b, /*adds=*/false);
    EXPECT_LT(relative_error(sum, same), kHopperError) << sizes.rows << " " << sizes.out;
  }
  if (sizes.rows >= 200) {  // of few numbers it is more of chance
    EXPECT_LT(relative_error(sum, wide(d_y).t().matmul(wide(x))), kFp8Error);
  }
  fp8_weight_grad_product(sum, a, b, /*adds=*/true);
  EXPECT_LT(relative_error(sum, same.mul(2)), kHopperError) << sizes.rows << " " << sizes.out;
}

TEST(Fp8WeightGradOnCpu, WritesOrAdds) {
  for (const Sizes& sizes : {Sizes{200, 9, 24}, Sizes{384, 130, 72}}) {
    check_weight_grad(sizes, at::kCPU);
  }
}

TEST(Fp8ProductOnGpu, IsThatOfTheNumbers) {
  SKIP_WITHOUT_GPU();
  poison_gpu_memory();
  for (const Sizes& sizes :
       {Sizes{1, 16, 16}, Sizes{300, 272, 320}, Sizes{130, 576, 7168}, Sizes{1024, 7168, 576},
        Sizes{513, 208, 512}, Sizes{2048, 4096, 1536}}) {
    for (int call = 0; call < 2; ++call) check_product(sizes, at::kCUDA);
  }
}

TEST(Fp8WeightGradOnGpu, WritesOrAdds) {
  SKIP_WITHOUT_GPU();
  poison_gpu_memory();
  for (const Sizes& sizes :
       {Sizes{16, 8, 8}, Sizes{304, 200, 328}, Sizes{1024, 576, 7168}, Sizes{4096, 1536, 4096}}) {
    check_weight_grad(sizes, at::kCUDA);
  }
}

TEST(Fp8GroupsOnGpu, AreEachGroupsProducts) {
  SKIP_WITHOUT_GPU();
  poison_gpu_memory();
  check_groups({0, 1, 63, 64, 0, 65, 300, 7, 0}, 136, 208, at::kCUDA);
  check_groups({5}, 8, 16, at::kCUDA);
  check_groups({0, 0, 0}, 136, 144, at::kCUDA);
  check_groups({2048, 1971, 0, 2125}, 3072, 4096, at::kCUDA);
  std::vector<int64_t> many(130);
  for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<int64_t>(i * 37 % 50);
  check_groups(many, 136, 384, at::kCUDA);
}

TEST(Fp8GroupsOnGpu, AreTheSameTwice) {
  SKIP_WITHOUT_GPU();
  const at::Tensor ends = ends_of({1000, 1999}, at::kCUDA);
  const Fp8Rows x = quantise_rows(random_bf16({2999, 1024}), kFactorType);
  const Fp8Blocks weight = quantise_blocks(random_bf16({2, 512, 1024}), kFactorType);
  EXPECT_TRUE(
      fp8_grouped_rows_product(x, weight, ends).equal(fp8_grouped_rows_product(x, weight, ends)));
}

}  // namespace
}  // namespace moetron
