#include "moetron/kernels/product.h"

#include <bit>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include <compare>

#include "moetron/kernels/blas.h"
#include "moetron/kernels/cuda/grouped_product.h"
#include "moetron/kernels/cuda/grouped_weight_grad.h"
#include "moetron/kernels/kernel_caches.h"
#include "moetron/kernels/timed_choices.h"
#endif

namespace moetron {
namespace {

bool are_gpu_bf16(const at::Tensor& a, const at::Tensor& b) {
  return is_gpu_bf16(a) && is_gpu_bf16(b);
}

#ifdef MOETRON_CUDA
// x [..., in] times weight [in, out], or [out, in] where it is transposed -> [..., out]
at::Tensor blas_product_of_rows(const at::Tensor& x, const at::Tensor& weight, bool transposed,
                                at::ScalarType dtype) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(transposed ? 0 : 1);
  const at::Tensor y = at::empty(shape, x.options().dtype(dtype));
  if (y.numel() == 0) return y;
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  blas_product(y.view({-1, y.size(-1)}), {rows}, {weight, transposed}, /*adds=*/false);
  return y;
}

// Of the same shape is what has about as many rows: their number is another in every micro-batch.
struct GroupedShape {
  int device = 0;
  int num_groups = 0, out = 0, in = 0;
  bool transposed = false;
  int rows_log2 = 0;
  auto operator<=>(const GroupedShape&) const = default;
};

// Each sums in the same order, so that all give the same bits: ATen's kernel, whose tiles are
// larger, and ours in either order of tiles.
class GroupedWays {
 public:
  explicit GroupedWays(int64_t workspace_bytes) : workspace_bytes_(workspace_bytes) {}
  int size() const { return at::globalContext().deterministicAlgorithms() ? 1 : 3; }
  int64_t workspace_bytes(int way) const { return way == 0 ? 0 : workspace_bytes_; }

 private:
  int64_t workspace_bytes_;
};

at::Tensor fastest_grouped_product(const at::Tensor& x, const at::Tensor& weight,
                                   const at::Tensor& ends, bool transposed) {
  auto& choices = KernelCaches::of_process().of<TimedChoices<GroupedShape, GroupedWays>>();
  at::Tensor y;
  GroupedProduct product{.x = x.const_data_ptr(),
                         .weight = weight.const_data_ptr(),
                         .ends = ends.const_data_ptr<int32_t>(),
                         .num_groups = static_cast<int>(weight.size(0)),
                         .out = static_cast<int>(weight.size(transposed ? 1 : 2)),
                         .in = static_cast<int>(x.size(1)),
                         .transposed = transposed};
  const GroupedShape shape{
      .device = x.get_device(),
      .num_groups = product.num_groups,
      .out = product.out,
      .in = product.in,
      .transposed = transposed,
      .rows_log2 = static_cast<int>(std::bit_width(static_cast<uint64_t>(x.size(0))))};
  choices.run(
      shape, x, /*may_try=*/true,
      [&] { return std::make_shared<const GroupedWays>(grouped_product_workspace_bytes(product)); },
      [&](const GroupedWays&, int way, void* workspace) {
        if (way == 0) {
          y = at::_grouped_mm(x, transposed ? weight.transpose(1, 2) : weight, ends);
          return;
        }
        y = at::empty({x.size(0), product.out}, x.options());
        product.y = y.data_ptr();
        product.along_columns = way == 2;
        launch_grouped_product(product, workspace, current_stream(x));
      });
  return y;
}
#endif

// Rows of whole 16 bytes, contiguous within, at multiples of 16 bytes.
bool fits_bulk_copies(const at::Tensor& x) {
  return x.dim() == 2 && x.stride(1) == 1 && x.stride(0) >= x.size(1) && x.size(1) % 8 == 0 &&
         has_aligned_rows(x, x.stride(0));
}

}  // namespace

void weight_grad_product(const at::Tensor& sum, const at::Tensor& d_y, const at::Tensor& x,
                         bool adds, [[maybe_unused]] Operators operators) {
  at::Tensor target = sum;
  if (x.size(0) == 0) {
    if (!adds) target.zero_();
    return;
  }
#ifdef MOETRON_CUDA
  if (operators == Operators::kFastest && are_gpu_bf16(d_y, x))
    return blas_product(sum, {d_y, /*transposed=*/true}, {x}, adds);
#endif
  if (x.scalar_type() == at::kFloat) {
    adds ? target.addmm_(d_y.t(), x) : at::mm_out(target, d_y.t(), x);
  } else {
    const at::Tensor rounded = at::mm(d_y.t(), x);
    adds ? target.add_(rounded) : target.copy_(rounded);
  }
}

at::Tensor product_in_fp32(const at::Tensor& x, const at::Tensor& weight,
                           [[maybe_unused]] Operators operators) {
#ifdef MOETRON_CUDA
  if (operators == Operators::kFastest && are_gpu_bf16(x, weight)) {
    return blas_product_of_rows(x, weight, /*transposed=*/true, at::kFloat);
  }
#endif
  return at::linear(x.to(at::kFloat), weight.to(at::kFloat));
}

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, bool transpose_weight,
                   [[maybe_unused]] Operators operators) {
#ifdef MOETRON_CUDA
  if (operators == Operators::kFastest && are_gpu_bf16(x, weight)) {
    return blas_product_of_rows(x, weight, transpose_weight, at::kBFloat16);
  }
#endif
  return transpose_weight ? at::linear(x, weight) : x.matmul(weight);
}

at::Tensor grouped_rows_product(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& ends, bool transpose_weight) {
  MT_CHECK(x.is_contiguous() && weight.is_contiguous() && weight.dim() == 3 &&
               weight.size(transpose_weight ? 2 : 1) == x.size(1) &&
               ends.numel() == weight.size(0) && ends.scalar_type() == at::kInt,
           "rows [", x.sizes(), "] have no product with the weights [", weight.sizes(), "] of ",
           ends.numel(), " groups");
#ifdef MOETRON_CUDA
  if (are_gpu_bf16(x, weight) && fits_bulk_copies(x) && weight.size(2) % 8 == 0 &&
      has_aligned_rows(weight, weight.size(2)) && x.size(0) > 0) {
    return fastest_grouped_product(x, weight, ends, transpose_weight);
  }
#endif
  return at::_grouped_mm(x, transpose_weight ? weight.transpose(1, 2) : weight, ends);
}

bool has_grouped_weight_grad(const at::Tensor& d_y, const at::Tensor& x) {
  return are_gpu_bf16(d_y, x) && fits_bulk_copies(d_y) && fits_bulk_copies(x);
}

#ifdef MOETRON_CUDA
void grouped_weight_grad_product(const at::Tensor& sum, const at::Tensor& d_y, const at::Tensor& x,
                                 const at::Tensor& ends, bool adds) {
  MT_CHECK(has_grouped_weight_grad(d_y, x) && d_y.size(0) == x.size(0), "d_y [", d_y.sizes(),
           "] and x [", x.sizes(), "] have no grouped weight gradient");
  MT_CHECK(sum.is_contiguous() && sum.scalar_type() == at::kFloat && sum.dim() == 3 &&
               sum.size(1) == d_y.size(1) && sum.size(2) == x.size(1) &&
               has_aligned_rows(sum, sum.size(2)),
           "the sum [", sum.sizes(), "] must be contiguous fp32 [groups, ", d_y.size(1), ", ",
           x.size(1), "], at a multiple of 16 bytes");
  MT_CHECK(ends.is_cuda() && ends.scalar_type() == at::kInt && ends.numel() == sum.size(0),
           "ends must be an int32 of the GPU for each of ", sum.size(0), " groups");
  const GroupedWeightGrad product{.sum = sum.data_ptr<float>(),
                                  .d_y = d_y.const_data_ptr(),
                                  .x = x.const_data_ptr(),
                                  .ends = ends.const_data_ptr<int32_t>(),
                                  .num_groups = static_cast<int>(sum.size(0)),
                                  .out = static_cast<int>(sum.size(1)),
                                  .in = static_cast<int>(sum.size(2)),
                                  .d_y_stride = d_y.stride(0),
                                  .x_stride = x.stride(0),
                                  .adds = adds};
  const at::Tensor workspace =
      at::empty({grouped_weight_grad_workspace_bytes(product)}, sum.options().dtype(at::kByte));
  launch_grouped_weight_grad(product, workspace.data_ptr(), current_stream(sum));
}
#else
void grouped_weight_grad_product(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, bool) {
  MT_CHECK(false, "a build without CUDA has no grouped weight gradient");
}
#endif

}  // namespace moetron
