#include "moetron/kernels/adamw.h"

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/adamw.h"
#endif

namespace moetron {

#ifdef MOETRON_CUDA
void adamw_update_on_gpu(const at::Tensor& value, const at::Tensor& master,
                         const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                         const at::Tensor& grad, const AdamWCoefficients& c) {
  const at::Tensor& wide = master.defined() ? master : value;
  for (const at::Tensor& x : {value, wide, exp_avg, exp_avg_sq, grad}) {
    MT_CHECK(x.is_cuda() && x.is_contiguous() && x.numel() == grad.numel(), "a tensor of ",
             x.numel(), " elements beside a gradient of ", grad.numel());
  }
  AdamWPointers pointers{wide.mutable_data_ptr<float>(), exp_avg.mutable_data_ptr<float>(),
                         exp_avg_sq.mutable_data_ptr<float>(), grad.const_data_ptr<float>()};
  if (master.defined()) {
    pointers.rounded = reinterpret_cast<uint16_t*>(value.mutable_data_ptr<at::BFloat16>());
  }
  if (grad.numel() > 0) launch_adamw(pointers, grad.numel(), c, current_stream(grad));
}
#else
void adamw_update_on_gpu(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const at::Tensor&, const AdamWCoefficients&) {
  MT_CHECK(false, "a build without CUDA has no AdamW kernel");
}
#endif

}  // namespace moetron
