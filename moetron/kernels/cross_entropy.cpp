#include "moetron/kernels/cross_entropy.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/cross_entropy.h"
#endif

namespace moetron {

bool has_cross_entropy_kernel(const at::Tensor& logits) {
  return is_gpu_bf16(logits) && logits.is_contiguous();
}

#ifdef MOETRON_CUDA
at::Tensor cross_entropy_in_place(const at::Tensor& logits, const at::Tensor& labels,
                                  int64_t ignored, double scale) {
  MT_CHECK(has_cross_entropy_kernel(logits) && logits.dim() == 2 && labels.is_cuda() &&
               labels.numel() == logits.size(0),
           "logits of shape ", logits.sizes(), ", labels of shape ", labels.sizes());
  const at::Tensor losses = at::empty({logits.size(0)}, logits.options().dtype(at::kFloat));
  if (losses.numel() == 0) return losses;
  const at::Tensor in_a_row = labels.contiguous();
  launch_cross_entropy({.logits = logits.mutable_data_ptr(),
                        .labels = in_a_row.const_data_ptr<int64_t>(),
                        .losses = losses.mutable_data_ptr<float>(),
                        .tokens = logits.size(0),
                        .vocab = static_cast<int>(logits.size(1)),
                        .ignored = ignored,
                        .scale = static_cast<float>(scale)},
                       current_stream(logits));
  return losses;
}
#else
at::Tensor cross_entropy_in_place(const at::Tensor&, const at::Tensor&, int64_t, double) {
  throw InternalError("kernel of cross-entropy in a build without CUDA");
}
#endif

}  // namespace moetron
