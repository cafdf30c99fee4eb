#include "moetron/kernels/grad_norm.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/grad_norm.h"
#endif

namespace moetron {

#ifdef MOETRON_CUDA
SumsOfSquares::SumsOfSquares(std::vector<at::Tensor> slices) : slices_(std::move(slices)) {
  MT_CHECK(!slices_.empty(), "no gradients");
  constexpr int64_t kBlockElements = int64_t{1} << 16;
  std::vector<int64_t> blocks, first_blocks{0};
  for (const at::Tensor& slice : slices_) {
    MT_CHECK(slice.is_cuda() && slice.is_contiguous(), "a gradient that is not whole on a GPU");
    const float* values = slice.const_data_ptr<float>();
    for (int64_t begin = 0; begin < slice.numel(); begin += kBlockElements) {
      blocks.push_back(reinterpret_cast<int64_t>(values + begin));
      blocks.push_back(std::min(kBlockElements, slice.numel() - begin));
    }
    first_blocks.push_back(static_cast<int64_t>(blocks.size() / 2));
  }
  const at::Device device = slices_.front().device();
  const auto count = static_cast<int64_t>(slices_.size());
  blocks_ = at::tensor(blocks).view({-1, 2}).to(device);
  first_blocks_ = at::tensor(first_blocks).to(device);
  partial_ = at::empty({blocks_.size(0)}, at::TensorOptions(device).dtype(at::kDouble));
  sums_ = at::empty({count}, partial_.options());
}

at::Tensor SumsOfSquares::compute() {
  launch_grad_norm({.blocks = blocks_.const_data_ptr<int64_t>(),
                    .num_blocks = blocks_.size(0),
                    .first_blocks = first_blocks_.const_data_ptr<int64_t>(),
                    .num_slices = sums_.size(0),
                    .partial = partial_.mutable_data_ptr<double>(),
                    .sums = sums_.mutable_data_ptr<double>()},
                   current_stream(sums_));
  return sums_;
}
#else
SumsOfSquares::SumsOfSquares(std::vector<at::Tensor>) {
  MT_CHECK(false, "a build without CUDA has no kernel for sums of squares");
}

at::Tensor SumsOfSquares::compute() {
  return sums_;
}
#endif

}  // namespace moetron
