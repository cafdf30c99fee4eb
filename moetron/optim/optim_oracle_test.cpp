// AdamW against torch.optim.AdamW itself, run in Python on the same numbers.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <unistd.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/optim_test_data.h"

namespace moetron {
namespace {

std::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

TEST(AdamWOracle, AgreesWithTorchOptimAdamW) {
  if (!std::filesystem::exists(".venv/bin/python")) GTEST_SKIP() << "no .venv";
  const int64_t count = 10007, steps = 7;
  const double lr = 3e-3;
  const AdamWSettings settings{0.9, 0.95, 1e-8, 0.1};
  at::manual_seed(3);
  const at::Tensor value = at::randn(count);
  const at::Tensor grads = at::randn({steps, count}) * 1e-3;

  const auto folder = std::filesystem::temp_directory_path() / concat("adamw_oracle.", ::getpid());
  std::filesystem::create_directories(folder);
  const std::string in = (folder / "in").string(), out = (folder / "out").string();
  write_file(in, concat(bytes_of(value), bytes_of(grads)));
  const std::string command = concat(".venv/bin/python moetron/optim/optim_oracle.py ", in, " ",
                                     out, " ", count, " ", steps, " ", lr, " ", settings.beta1, " ",
                                     settings.beta2, " ", settings.eps, " ", settings.weight_decay);
  ASSERT_EQ(std::system(command.c_str()), 0);
  const std::string result = read_file(out);
  std::filesystem::remove_all(folder);
  const at::Tensor want = at::empty({3, count});
  ASSERT_EQ(result.size(), want.nbytes());
  std::memcpy(want.mutable_data_ptr(), result.data(), result.size());

  Parameter parameter("w", {count}, at::kFloat, {});
  parameter.value().copy_(value);
  const OneRank rank({&parameter});
  AdamW adamw(rank.buckets.owned(), settings);
  for (int64_t step = 1; step <= steps; ++step) {
    parameter.grad().copy_(grads[step - 1]);
    adamw.step(lr, step);
  }
  const std::vector<NamedSlice> states = adamw.states();
  EXPECT_LE(relative_error(parameter.value(), want[0]), kRounding / 4);
  EXPECT_LE(relative_error(states[0].view, want[1]), kRounding / 4);
  EXPECT_LE(relative_error(states[1].view, want[2]), kRounding / 4);
}

}  // namespace
}  // namespace moetron
