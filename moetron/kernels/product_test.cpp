#include "moetron/kernels/product.h"

#include <numeric>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

// Long sums of tensor cores lose a few last bits of fp32; a result rounded to bf16 is 1e-3 away.
constexpr double kFp32Error = 3e-5;
constexpr double kBf16Error = 4e-3;

at::Tensor wide(const at::Tensor& x) {
  return x.to(at::kDouble);
}

at::Tensor weight_grad(const at::Tensor& d_y, const at::Tensor& x) {
  return wide(d_y).t().matmul(wide(x));
}

at::Tensor not_a_number(at::IntArrayRef sizes) {
  return at::full(sizes, std::numeric_limits<float>::quiet_NaN(),
                  at::TensorOptions(has_gpu() ? at::kCUDA : at::kCPU).dtype(at::kFloat));
}

// `columns` columns out of the middle of wider rows.
at::Tensor strided_bf16(int64_t rows, int64_t columns, int64_t before) {
  return random_bf16({rows, before + columns + 8}).narrow(1, before, columns);
}

TEST(WeightGradProductOnCpu, WritesOrAdds) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor d_y = at::randn({5, 3}).to(dtype), x = at::randn({5, 4}).to(dtype);
    at::Tensor sum = at::full({3, 4}, std::numeric_limits<float>::quiet_NaN());
    weight_grad_product(sum, d_y, x, /*adds=*/false);
    const double bound = dtype == at::kFloat ? 1e-6 : kBf16Error;
    EXPECT_LT(relative_error(sum, weight_grad(d_y, x)), bound);
    weight_grad_product(sum, d_y, x, /*adds=*/true);
    EXPECT_LT(relative_error(sum, weight_grad(d_y, x).mul(2)), bound);
  }
}

TEST(WeightGradProductOnCpu, OfNoRowsIsZero) {
  const at::Tensor d_y = at::empty({0, 3}), x = at::empty({0, 4});
  at::Tensor sum = at::ones({3, 4});
  weight_grad_product(sum, d_y, x, /*adds=*/true);
  EXPECT_TRUE(sum.equal(at::ones({3, 4})));
  weight_grad_product(sum, d_y, x, /*adds=*/false);
  EXPECT_TRUE(sum.equal(at::zeros({3, 4})));
}

TEST(ProductOnCpu, RoundsOnlyToItsDtype) {
  const at::Tensor x = at::randn({2, 6, 40}).to(at::kBFloat16),
                   weight = at::randn({7, 40}).to(at::kBFloat16);
  const at::Tensor reference = wide(x).matmul(wide(weight).t());  // [2, 6, 7]
  EXPECT_LT(relative_error(product_in_fp32(x[0], weight), reference[0]), 1e-6);
  const at::Tensor y = product(x, weight, /*transpose_weight=*/true);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_LT(relative_error(y, reference), kBf16Error);
  const at::Tensor d_x = product(y, weight, /*transpose_weight=*/false);
  EXPECT_LT(relative_error(d_x, wide(y).matmul(wide(weight))), kBf16Error);
}

// `counts` rows a group. Each call may be computed in another way until the fastest is found.
void check_grouped_rows(const std::vector<int64_t>& counts, int64_t in, int64_t out,
                        at::TensorOptions options, double bound) {
  std::vector<int32_t> sums(counts.size());
  std::partial_sum(counts.begin(), counts.end(), sums.begin());
  const at::Tensor ends = at::tensor(sums, at::kInt).to(options.device());
  const auto num_groups = static_cast<int64_t>(counts.size());
  const at::Tensor x = at::randn({sums.back(), in}, options);
  for (const bool transposed : {true, false}) {
    const at::Tensor weight = transposed ? at::randn({num_groups, out, in}, options)
                                         : at::randn({num_groups, in, out}, options);
    at::Tensor first_y;
    for (int call = 0; call < 3; ++call) {
      const at::Tensor y = grouped_rows_product(x, weight, ends, transposed);
      ASSERT_EQ(y.sizes(), at::IntArrayRef({x.size(0), out}));
      if (call == 0) first_y = y;
      EXPECT_TRUE(y.equal(first_y)) << "call " << call;
      for (int64_t group = 0; group < num_groups; ++group) {
        if (counts[group] == 0) continue;
        const int64_t first = sums[group] - counts[group];
        const at::Tensor matrix = transposed ? weight[group].t() : weight[group];
        const at::Tensor reference = wide(x.narrow(0, first, counts[group])).matmul(wide(matrix));
        EXPECT_LT(relative_error(y.narrow(0, first, counts[group]), reference), bound)
            << "group " << group << ", call " << call;
      }
    }
  }
}

TEST(GroupedRowsProductOnCpu, IsThatOfEachGroup) {
  check_grouped_rows({3, 0, 5, 1}, 16, 8, at::kFloat, 1e-6);
  check_grouped_rows({3, 0, 5, 1}, 16, 8, at::kBFloat16, kBf16Error);
}

TEST(GroupedRowsProductOnGpu, IsThatOfEachGroup) {
  SKIP_WITHOUT_GPU();
  const auto options = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  check_grouped_rows({0, 1, 63, 64, 0, 65, 300, 7, 0}, 136, 264, options, kBf16Error);
  check_grouped_rows({5}, 8, 8, options, kBf16Error);
  check_grouped_rows({2048, 1971, 0, 2125}, 4096, 3072, options, kBf16Error);
  check_grouped_rows({1000, 1096}, 1536, 4096, options, kBf16Error);
  std::vector<int64_t> many(130);
  for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<int64_t>(i * 37 % 50);
  check_grouped_rows(many, 136, 384, options, kBf16Error);
}

TEST(GroupedWeightGradOnCpu, IsNotThere) {
  const at::Tensor x = at::zeros({8, 8}, at::kBFloat16);
  EXPECT_FALSE(has_grouped_weight_grad(x, x));
}

struct Sizes {
  int64_t rows, out, in;
};

TEST(WeightGradProductOnGpu, WritesOrAdds) {
  SKIP_WITHOUT_GPU();
  for (const auto [rows, out, in] : {Sizes{1, 8, 8}, Sizes{7, 33, 65}, Sizes{130, 1, 24},
                                     Sizes{1000, 576, 7168}, Sizes{2048, 4096, 1536}}) {
    const at::Tensor d_y = random_bf16({rows, out}), x = random_bf16({rows, in});
    const at::Tensor reference = weight_grad(d_y, x), sum = not_a_number({out, in});
    weight_grad_product(sum, d_y, x, /*adds=*/false);
    EXPECT_LT(relative_error(sum, reference), kFp32Error) << rows << " " << out << " " << in;
    weight_grad_product(sum, d_y, x, /*adds=*/true);
    EXPECT_LT(relative_error(sum, reference.mul(2)), kFp32Error) << rows << " " << out << " " << in;
  }
}

// Algorithms are tried when a shape comes again: the result and what is added to it stay right.
TEST(WeightGradProductOnGpu, StaysRightWhileItTriesAlgorithms) {
  SKIP_WITHOUT_GPU();
  const at::Tensor d_y = random_bf16({264, 312}), x = random_bf16({264, 520});
  const at::Tensor reference = weight_grad(d_y, x);
  const at::Tensor before = at::randn({312, 520}, at::kCUDA), sum = before.clone();
  weight_grad_product(sum, d_y, x, /*adds=*/true);
  EXPECT_LT(relative_error(sum, reference.add(before)), kFp32Error);
  for (int call = 0; call < 3; ++call) {
    sum.fill_(std::numeric_limits<float>::quiet_NaN());
    weight_grad_product(sum, d_y, x, /*adds=*/false);
    EXPECT_LT(relative_error(sum, reference), kFp32Error);
  }
  weight_grad_product(sum, d_y, x, /*adds=*/true);
  EXPECT_LT(relative_error(sum, reference.mul(2)), kFp32Error);
}

TEST(WeightGradProductOnGpu, TakesStridedRowsAndAnyAddress) {
  SKIP_WITHOUT_GPU();
  for (const int64_t before : {8, 1}) {
    const at::Tensor d_y = strided_bf16(200, 96, before), x = strided_bf16(200, 72, before);
    const at::Tensor all = not_a_number({1 + 96 * 72}), sum = all.narrow(0, 1, 96 * 72);
    weight_grad_product(sum.view({96, 72}), d_y, x, /*adds=*/false);
    EXPECT_LT(relative_error(sum.view({96, 72}), weight_grad(d_y, x)), kFp32Error);
    EXPECT_TRUE(all[0].isnan().item<bool>());
  }
}

TEST(WeightGradProductOnGpu, IsTheSameTwice) {
  SKIP_WITHOUT_GPU();
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  const at::Tensor d_y = random_bf16({4096, 136}), x = random_bf16({4096, 264});
  const at::Tensor first = not_a_number({136, 264}), second = not_a_number({136, 264});
  weight_grad_product(first, d_y, x, /*adds=*/false);
  weight_grad_product(second, d_y, x, /*adds=*/false);
  at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
  EXPECT_TRUE(first.equal(second));
  EXPECT_LT(relative_error(first, weight_grad(d_y, x)), kFp32Error);
}

TEST(ProductOnGpu, RoundsOnlyToItsDtype) {
  SKIP_WITHOUT_GPU();
  for (const auto [rows, out, in] :
       {Sizes{1, 8, 8}, Sizes{9, 37, 41}, Sizes{300, 256, 7168}, Sizes{1024, 2112, 7168}}) {
    poison_gpu_memory();
    const at::Tensor x = random_bf16({2, rows, in}), weight = random_bf16({out, in});
    const at::Tensor reference = wide(x).matmul(wide(weight).t());  // [2, rows, out]
    const at::Tensor wide_y = product_in_fp32(x[1], weight);
    EXPECT_EQ(wide_y.scalar_type(), at::kFloat);
    EXPECT_LT(relative_error(wide_y, reference[1]), kFp32Error) << rows << " " << out << " " << in;
    const at::Tensor y = product(x, weight, /*transpose_weight=*/true);
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_EQ(y.sizes(), reference.sizes());
    EXPECT_LT(relative_error(y, reference), kBf16Error) << rows << " " << out << " " << in;
    const at::Tensor d_x = product(y, weight, /*transpose_weight=*/false);  // [2, rows, in]
    EXPECT_LT(relative_error(d_x, wide(y).matmul(wide(weight))), kBf16Error);
  }
}

TEST(ProductOnGpu, OfNoRowsIsEmpty) {
  SKIP_WITHOUT_GPU();
  const at::Tensor x = random_bf16({0, 16}), weight = random_bf16({24, 16});
  EXPECT_EQ(product(x, weight, /*transpose_weight=*/true).sizes(), at::IntArrayRef({0, 24}));
  EXPECT_EQ(product_in_fp32(x, weight).sizes(), at::IntArrayRef({0, 24}));
}

TEST(GroupedWeightGradOnGpu, WantsWholeVectors) {
  SKIP_WITHOUT_GPU();
  const at::Tensor x = random_bf16({4, 64});
  EXPECT_TRUE(has_grouped_weight_grad(x, x));
  EXPECT_TRUE(has_grouped_weight_grad(x.narrow(1, 8, 16), x));
  EXPECT_FALSE(has_grouped_weight_grad(x.narrow(1, 4, 16), x));
  EXPECT_FALSE(has_grouped_weight_grad(x, x.narrow(1, 0, 12)));
  EXPECT_FALSE(has_grouped_weight_grad(x, x.to(at::kFloat)));
}

// `counts` rows a group, and `behind` rows of NaN after the last group.
void check_grouped(const std::vector<int64_t>& counts, const at::Tensor& d_y, const at::Tensor& x,
                   int64_t behind) {
  std::vector<int32_t> sums(counts.size());
  std::partial_sum(counts.begin(), counts.end(), sums.begin());
  const at::Tensor ends = at::tensor(sums, at::kInt).to(at::kCUDA);
  d_y.narrow(0, d_y.size(0) - behind, behind).fill_(std::numeric_limits<float>::quiet_NaN());
  const auto num_groups = static_cast<int64_t>(counts.size());
  const at::Tensor sum = not_a_number({num_groups, d_y.size(1), x.size(1)});
  grouped_weight_grad_product(sum, d_y, x, ends, /*adds=*/false);
  const at::Tensor once = sum.clone();
  grouped_weight_grad_product(sum, d_y, x, ends, /*adds=*/true);
  for (int64_t group = 0; group < num_groups; ++group) {
    const int64_t first = sums[group] - counts[group];
    const at::Tensor reference =
        weight_grad(d_y.narrow(0, first, counts[group]), x.narrow(0, first, counts[group]));
    EXPECT_LT(relative_error(once[group], reference), kFp32Error) << "group " << group;
    EXPECT_LT(relative_error(sum[group], reference.mul(2)), kFp32Error) << "group " << group;
  }
}

TEST(GroupedWeightGradOnGpu, TakesGroupsOfAnySize) {
  SKIP_WITHOUT_GPU();
  const std::vector<int64_t> counts = {0, 1, 63, 64, 0, 65, 300, 7, 0};  // 500 rows
  check_grouped(counts, random_bf16({500, 136}), random_bf16({500, 264}), 0);
  check_grouped(counts, random_bf16({510, 8}), random_bf16({510, 24}), 10);
  check_grouped(counts, strided_bf16(500, 256, 16), strided_bf16(500, 512, 8), 0);
  check_grouped({0, 0, 0}, random_bf16({4, 136}), random_bf16({4, 72}), 4);
}

TEST(GroupedWeightGradOnGpu, TakesManyGroups) {
  SKIP_WITHOUT_GPU();
  std::vector<int64_t> counts(130);
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<int64_t>(i * 37 % 50);
  const int64_t rows = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  check_grouped(counts, random_bf16({rows, 384}), random_bf16({rows, 136}), 0);
}

TEST(GroupedWeightGradOnGpu, TakesTheRealSizes) {
  SKIP_WITHOUT_GPU();
  check_grouped({2048, 1971, 0, 2125}, random_bf16({6144, 3072}), random_bf16({6144, 4096}), 0);
  check_grouped({2000, 2096}, random_bf16({4096, 7168}), random_bf16({4096, 2048}), 0);
}

TEST(GroupedWeightGradOnGpu, IsTheSameTwice) {
  SKIP_WITHOUT_GPU();
  const at::Tensor d_y = random_bf16({3000, 512}), x = random_bf16({3000, 1024});
  const at::Tensor ends = at::tensor({1000, 2999}, at::kInt).to(at::kCUDA);
  const at::Tensor first = not_a_number({2, 512, 1024}), second = not_a_number({2, 512, 1024});
  grouped_weight_grad_product(first, d_y, x, ends, /*adds=*/false);
  grouped_weight_grad_product(second, d_y, x, ends, /*adds=*/false);
  EXPECT_TRUE(first.equal(second));
}

}  // namespace
}  // namespace moetron
