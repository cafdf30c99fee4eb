#include "moetron/kernels/adamw.h"

#include "moetron/base/error.h"
#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

constexpr AdamWCoefficients kCoefficients{0.3f, 0.999f, 0.1f, 0.95f, 0.05f, 1e-8f, -1e-2f};

struct States {
  at::Tensor value, exp_avg, exp_avg_sq;
};

// In fp64.
void update_in_fp64(States& s, const at::Tensor& grad, const AdamWCoefficients& c) {
  const at::Tensor g = grad.to(at::kDouble) * c.grad_scale;
  s.exp_avg += c.one_minus_beta1 * (g - s.exp_avg);
  s.exp_avg_sq = s.exp_avg_sq * c.beta2 + c.one_minus_beta2 * g * g;
  s.value = s.value * c.keep + c.minus_step_size * s.exp_avg / (s.exp_avg_sq.sqrt() + c.eps);
}

// Arrays whose elements [shift, shift + count) are updated; the others must stay.
struct OnGpu {
  at::Tensor all, rounded;
  int64_t shift, count;

  OnGpu(int64_t shift_, int64_t count_)
      : all(at::randn({4, shift_ + count_ + 9}, at::kCUDA)),
        rounded(at::full({shift_ + count_ + 9}, 7, all.options().dtype(at::kBFloat16))),
        shift(shift_),
        count(count_) {
    all[2].square_();
  }
  at::Tensor part(const at::Tensor& whole) const { return whole.narrow(0, shift, count); }
};

void check(int64_t shift, int64_t count, bool has_master) {
  SCOPED_TRACE(testing::Message() << count << " from " << shift << ", master " << has_master);
  OnGpu gpu(shift, count);
  const at::Tensor before = gpu.all.clone();
  States want{gpu.all[0].to(at::kDouble), gpu.all[1].to(at::kDouble), gpu.all[2].to(at::kDouble)};
  const at::Tensor wide = gpu.part(gpu.all[0]), rounded = gpu.part(gpu.rounded);
  for (int step = 0; step < 3; ++step) {
    gpu.all[3].normal_();
    update_in_fp64(want, gpu.all[3], kCoefficients);
    adamw_update_on_gpu(has_master ? rounded : wide, has_master ? wide : at::Tensor(),
                        gpu.part(gpu.all[1]), gpu.part(gpu.all[2]), gpu.part(gpu.all[3]),
                        kCoefficients);
  }
  EXPECT_LT(relative_error(wide, gpu.part(want.value)), 1e-6);
  EXPECT_LT(relative_error(gpu.part(gpu.all[1]), gpu.part(want.exp_avg)), 1e-6);
  EXPECT_LT(relative_error(gpu.part(gpu.all[2]), gpu.part(want.exp_avg_sq)), 1e-6);
  at::Tensor want_rounded = at::full_like(gpu.rounded, 7);
  if (has_master) gpu.part(want_rounded).copy_(wide);
  EXPECT_TRUE(at::equal(gpu.rounded, want_rounded)) << "rounded as torch does, and nothing else";
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::equal(gpu.all[i].slice(0, 0, shift), before[i].slice(0, 0, shift)));
    EXPECT_TRUE(at::equal(gpu.all[i].slice(0, shift + count), before[i].slice(0, shift + count)));
  }
}

TEST(AdamWKernel, AgreesWithFp64) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(1);
  for (const bool has_master : {false, true}) {
    for (const int64_t count : {1, 3, 4, 1023, 2048, 2049, 4095, 100000, 4096 * 1536 + 7}) {
      for (const int64_t shift : {0, 4, 1, 6}) check(shift, count, has_master);
    }
  }
}

TEST(AdamWKernel, ANanStaysOne) {
  SKIP_WITHOUT_GPU();
  const auto options = at::TensorOptions(at::kCUDA);
  const at::Tensor grad = at::full({40}, std::numeric_limits<float>::quiet_NaN(), options);
  const at::Tensor master = at::zeros(40, options), exp_avg = at::zeros(40, options),
                   exp_avg_sq = at::zeros(40, options);
  const at::Tensor value = at::zeros(40, options.dtype(at::kBFloat16));
  adamw_update_on_gpu(value, master, exp_avg, exp_avg_sq, grad, kCoefficients);
  EXPECT_TRUE(value.isnan().all().item<bool>());
}

TEST(AdamWKernel, RefusesTensorsOnTheHost) {
  const at::Tensor x = at::zeros(8);
  EXPECT_THROW(adamw_update_on_gpu(x, {}, x, x, x, kCoefficients), InternalError);
}

}  // namespace
}  // namespace moetron
