#include "moetron/nn/rope.h"

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"

namespace moetron {
namespace {

// The two members of every pair as views: [batch, seq, heads, dim/2].
std::pair<at::Tensor, at::Tensor> pair_members(const at::Tensor& x, RopePairs pairs) {
  const int64_t half = x.size(-1) / 2;
  if (pairs == RopePairs::kHalves) return {x.narrow(-1, 0, half), x.narrow(-1, half, half)};
  const at::Tensor split = x.unflatten(-1, {half, 2});
  return {split.select(-1, 0), split.select(-1, 1)};
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                  RopePairs pairs) {
  at::Tensor y = at::empty(x.sizes(), x.options());
  const auto [a, b] = pair_members(x, pairs);
  auto [ya, yb] = pair_members(y, pairs);
  at::mul_out(ya, a, cos);
  ya.addcmul_(b, sin, -1);
  at::mul_out(yb, b, cos);
  yb.addcmul_(a, sin);
  return y;
}

class Rope final : public PureOperation {
 public:
  Rope(at::Tensor cos, at::Tensor sin, RopePairs pairs)
      : cos_(std::move(cos)), sin_(std::move(sin)), pairs_(pairs) {}

  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    return {rotate(d_y, cos_, sin_.neg(), pairs_)};
  }

 private:
  at::Tensor cos_;
  at::Tensor sin_;
  RopePairs pairs_;
};

}  // namespace

RopeAngles rope_angles(const at::Tensor& positions, const at::Tensor& inverse_frequencies,
                       double scale) {
  const at::NoGradGuard no_grad;
  const at::Tensor frequencies = inverse_frequencies.view({1, 1, 1, -1});
  const at::Tensor angles = positions.to(at::kFloat)
                                .unsqueeze(-1)
                                .unsqueeze(-1)
                                .mul(frequencies);  // [batch, seq, 1, dim/2]
  return {angles.cos().mul_(scale), angles.sin().mul_(scale)};
}

at::Tensor apply_rope(const at::Tensor& x, const RopeAngles& angles, RopePairs pairs,
                      SegmentRun& run) {
  const at::Tensor cos = angles.cos.to(x.dtype());
  const at::Tensor sin = angles.sin.to(x.dtype());
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = rotate(x, cos, sin, pairs);
  }
  run.attach(y, std::make_shared<Rope>(cos, sin, pairs), {x});
  return y;
}

}  // namespace moetron
