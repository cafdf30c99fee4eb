#include "moetron/kernels/norm.h"

#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

constexpr double kNormEps = 1e-6;
constexpr double kNormBf16 = 4e-3;  // of results rounded once: half a unit in the last place
constexpr double kNormFp32 = 1e-5;

struct Inputs {
  at::Tensor x, delta, weight, d_y, d_sum;  // delta and d_sum: undefined for none
};

struct Results {
  RmsNormed forward;
  RmsNormGrads backward;
};

Results run(const Inputs& in) {
  Results out;
  out.forward = rms_norm_forward(in.x, in.delta, in.weight, kNormEps);
  out.backward =
      rms_norm_backward(in.d_y, in.d_sum, out.forward.sum, out.forward.inverse_rms, in.weight);
  return out;
}

// Compares with autograd through the formula in fp64.
void expect_right(const Inputs& in, const Results& out, double bound, double statistics_bound) {
  const at::Tensor wanted_sum = in.delta.defined() ? in.x.add(in.delta) : in.x;
  EXPECT_TRUE(at::equal(out.forward.sum, wanted_sum));
  const at::Tensor sum = wanted_sum.to(at::kDouble).requires_grad_();
  const at::Tensor weight = in.weight.to(at::kDouble).requires_grad_();
  const at::Tensor inverse_rms = sum.square().mean(-1, true).add(kNormEps).rsqrt();
  const at::Tensor y = sum.mul(inverse_rms).mul(weight);
  y.backward(in.d_y.to(at::kDouble));
  at::Tensor d_x = sum.grad();
  if (in.d_sum.defined()) d_x = d_x.add(in.d_sum.to(at::kDouble));

  EXPECT_LT(relative_error(out.forward.y, y.detach()), bound);
  EXPECT_EQ(out.forward.y.scalar_type(), in.x.scalar_type());
  EXPECT_EQ(out.forward.inverse_rms.sizes(), inverse_rms.sizes());
  EXPECT_LT(relative_error(out.forward.inverse_rms, inverse_rms.detach()), kNormFp32);
  EXPECT_EQ(out.backward.d_x.sizes(), in.x.sizes());
  EXPECT_LT(relative_error(out.backward.d_x, d_x), bound);
  EXPECT_LT(relative_error(out.backward.d_weight_parts.sum(0), weight.grad()), statistics_bound);
}

TEST(RmsNorm, AtenElsewhere) {
  for (const bool joined : {false, true}) {
    const auto random = [] { return at::randn({3, 5, 24}); };
    const Inputs in{random(), joined ? random() : at::Tensor(), at::randn({24}), random(),
                    joined ? random() : at::Tensor()};
    const Results out = run(in);
    EXPECT_EQ(out.backward.d_weight_parts.sizes(), (std::vector<int64_t>{1, 24}));
    expect_right(in, out, 1e-6, 1e-6);
  }
}

TEST(RmsNorm, AtenRoundsBeforeTheWeightAsTransformersDoes) {
  const at::Tensor x = at::randn({7, 16}).to(at::kBFloat16);
  const at::Tensor weight = at::randn({16}).to(at::kBFloat16);
  const RmsNormed out = rms_norm_forward(x, {}, weight, kNormEps);
  const at::Tensor normed = x.to(at::kFloat).mul(out.inverse_rms).to(at::kBFloat16);
  EXPECT_TRUE(at::equal(out.y, normed.mul(weight)));
  EXPECT_TRUE(out.sum.is_alias_of(x));
}

Inputs gpu_inputs(int64_t rows, int64_t size, bool joined) {
  const auto random = [&] { return random_bf16({rows, size}); };
  return {random(), joined ? random() : at::Tensor(), random_bf16({size}), random(),
          joined ? random() : at::Tensor()};
}

TEST(RmsNorm, KernelOfEverySize) {
  SKIP_WITHOUT_GPU();
  for (const int64_t size :
       {8, 24, 128, 264, 512, 1000, 1024, 1032, 1536, 4096, 4104, 7168, 8192}) {
    for (const int64_t rows : {1, 3, 21}) {
      for (const bool joined : {false, true}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << size << " joined " << joined);
        const Inputs in = gpu_inputs(rows, size, joined);
        poison_gpu_memory(int64_t{1} << 24);
        expect_right(in, run(in), kNormBf16, kNormFp32);
      }
    }
  }
}

TEST(RmsNorm, KernelOfMoreRowsThanBlocks) {
  SKIP_WITHOUT_GPU();
  for (const int64_t size : {128, 512, 1536, 4096, 7168}) {
    SCOPED_TRACE(size);
    const Inputs in = gpu_inputs(4097, size, size != 512);
    poison_gpu_memory();
    const Results out = run(in), again = run(in);
    expect_right(in, out, kNormBf16, kNormFp32);
    EXPECT_TRUE(at::equal(out.backward.d_weight_parts, again.backward.d_weight_parts));
    EXPECT_TRUE(at::equal(out.backward.d_x, again.backward.d_x));
  }
}

TEST(RmsNorm, KernelOfStridedRows) {
  SKIP_WITHOUT_GPU();
  const at::Tensor wide = random_bf16({2, 33, 576 + 512});
  Inputs in = gpu_inputs(2 * 33, 512, true);
  for (at::Tensor* t : {&in.delta, &in.d_y, &in.d_sum}) *t = t->view({2, 33, 512});
  in.x = wide.narrow(2, 64, 512);       // rows at multiples of 16 bytes: read in place
  in.delta = wide.narrow(2, 575, 512);  // not so: copied
  const Results out = run(in);
  EXPECT_TRUE(out.backward.d_x.is_contiguous());
  expect_right(in, out, kNormBf16, kNormFp32);
  in.delta.reset();
  const Results alone = run(in);
  EXPECT_TRUE(alone.forward.sum.is_alias_of(wide));
  expect_right(in, alone, kNormBf16, kNormFp32);
}

TEST(RmsNorm, NoRowsGiveNoGradient) {
  SKIP_WITHOUT_GPU();
  const Inputs in = gpu_inputs(0, 128, true);
  const Results out = run(in);
  EXPECT_EQ(out.forward.y.numel(), 0);
  EXPECT_EQ(out.backward.d_weight_parts.sum(0).abs().sum().item<float>(), 0);
}

TEST(RmsNorm, SizesThatNoKernelTakesRunOnAten) {
  SKIP_WITHOUT_GPU();
  const Inputs in = gpu_inputs(5, 12, false);
  expect_right(in, run(in), 2 * kNormBf16, 2 * kNormBf16);  // rounds twice
}

}  // namespace
}  // namespace moetron
