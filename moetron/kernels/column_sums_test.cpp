#include "moetron/kernels/column_sums.h"

#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

void check_sums(const at::TensorOptions& options) {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{256, 4096}, {1, 7}, {3, 33}, {500, 7168}, {0, 5}}) {
    const at::Tensor parts = at::randn({rows, columns}, options);
    const at::Tensor sum = at::randn({columns}, options), before = sum.clone();
    add_column_sums(sum, parts);
    const at::Tensor expected = before.cpu().to(at::kDouble) + parts.cpu().to(at::kDouble).sum(0);
    EXPECT_LT(relative_error(sum, expected), 1e-6) << rows << " x " << columns;
  }
}

TEST(ColumnSums, OnTheCpu) {
  check_sums(at::kFloat);
}

TEST(ColumnSums, OnAGpuTheSameBitsEveryTime) {
  SKIP_WITHOUT_GPU();
  check_sums(at::TensorOptions(at::kCUDA).dtype(at::kFloat));
  const at::Tensor parts = at::randn({264, 4096}, at::TensorOptions(at::kCUDA));
  const at::Tensor a = at::zeros({4096}, parts.options()), b = at::zeros_like(a);
  add_column_sums(a, parts);
  add_column_sums(b, parts);
  EXPECT_TRUE(at::equal(a, b));
}

}  // namespace
}  // namespace moetron
