#include "moetron/kernels/column_sums.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/column_sums.h"
#include "moetron/kernels/device.h"
#endif

namespace moetron {

void add_column_sums(const at::Tensor& sum, const at::Tensor& parts,
                     [[maybe_unused]] Operators operators) {
  MT_CHECK(parts.dim() == 2 && sum.numel() == parts.size(1), "parts of shape ", parts.sizes(),
           " for a sum of shape ", sum.sizes());
#ifdef MOETRON_CUDA
  if (operators == Operators::kFastest && parts.is_cuda() && parts.scalar_type() == at::kFloat &&
      parts.is_contiguous() && sum.is_contiguous()) {
    launch_add_column_sums(parts.const_data_ptr<float>(), sum.mutable_data_ptr<float>(),
                           parts.size(0), parts.size(1), current_stream(parts));
    return;
  }
#endif
  sum.add_(parts.sum(0));
}

}  // namespace moetron
