#include "moetron/kernels/blas.h"

#include <map>
#include <memory>
#include <mutex>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "moetron/base/error.h"
#include "moetron/kernels/cuda/blas_product.h"
#include "moetron/kernels/cuda/fastest.h"
#include "moetron/kernels/device.h"

namespace moetron {
namespace {

constexpr int kTriedAlgorithms = 8;
constexpr size_t kMostChoices = 4096;  // documents of every length make new shapes without end

at::Tensor make_workspace(const at::Tensor& d, int64_t bytes) {
  return at::empty({bytes}, d.options().dtype(at::kByte));
}

// Overwrites d.
int fastest(const BlasProduct& product, const at::Tensor& a, const at::Tensor& b,
            const at::Tensor& d) {
  const int count = product.num_algorithms();
  int64_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes = std::max(bytes, product.workspace_bytes(i));
  const at::Tensor workspace = make_workspace(d, bytes);
  const cudaStream_t stream = current_stream(d);
  return fastest_of(count, stream, [&](int i) {
    product.run(i, a.const_data_ptr(), b.const_data_ptr(), d.data_ptr(), /*adds=*/false,
                workspace.data_ptr(), stream);
  });
}

struct Choice {
  std::shared_ptr<const BlasProduct> product;
  int algorithm = 0;
  int64_t writes = 0;  // calls that overwrite the result
};

// One set of choices for all threads: once chosen, what autograd's thread recomputes has the bits
// of the forward.
class Choices {
 public:
  Choice get(const BlasShape& shape, const at::Tensor& a, const at::Tensor& b, const at::Tensor& d,
             bool adds) {
    const std::lock_guard lock(mutex_);
    if (choices_.size() == kMostChoices) choices_.clear();
    Choice& choice = choices_[shape];
    if (!choice.product) {
      const bool tries = !at::globalContext().deterministicAlgorithms();
      choice.product =
          std::make_shared<BlasProduct>(handle(shape.device), shape, tries ? kTriedAlgorithms : 1);
    }
    if (!adds && ++choice.writes == 2 && choice.product->num_algorithms() > 1) {
      choice.algorithm = fastest(*choice.product, a, b, d);
    }
    return choice;
  }

 private:
  cublasLtHandle_t handle(int device) {
    cublasLtHandle_t& handle = handles_[device];
    if (handle == nullptr) {
      MT_CHECK(cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cublasLtCreate failed");
    }
    return handle;
  }

  std::mutex mutex_;
  std::map<int, cublasLtHandle_t> handles_;
  std::map<BlasShape, Choice> choices_;
};

Choices& choices() {
  static auto* all = new Choices;  // never destroyed: at exit the driver may be gone before it
  return *all;
}

int64_t row_stride(const at::Tensor& x) {
  return x.size(0) > 1 ? x.stride(0) : x.size(1);
}

// Of the first element, up to the 256 bytes that cuBLASLt asks about.
int64_t alignment(const at::Tensor& x) {
  const auto address = reinterpret_cast<uintptr_t>(x.const_data_ptr()) | 256;
  return static_cast<int64_t>(address & -address);
}

at::Tensor with_plain_rows(const at::Tensor& x) {
  const bool plain = (x.size(1) == 1 || x.stride(1) == 1) && row_stride(x) >= x.size(1);
  return plain ? x : x.clone(at::MemoryFormat::Contiguous);
}

}  // namespace

void blas_product(const at::Tensor& d, BlasFactor a, BlasFactor b, bool adds) {
  const c10::cuda::CUDAGuard guard(d.device());
  const at::Tensor first = with_plain_rows(a.matrix), second = with_plain_rows(b.matrix);
  const BlasShape shape{.device = d.get_device(),
                        .m = d.size(0),
                        .n = d.size(1),
                        .k = first.size(a.transposed ? 0 : 1),
                        .a_transposed = a.transposed,
                        .b_transposed = b.transposed,
                        .fp32_result = d.scalar_type() == at::kFloat,
                        .a_stride = row_stride(first),
                        .b_stride = row_stride(second),
                        .d_stride = row_stride(d),
                        .a_alignment = alignment(first),
                        .b_alignment = alignment(second),
                        .d_alignment = alignment(d)};
  MT_CHECK(first.size(a.transposed ? 1 : 0) == shape.m &&
               second.size(b.transposed ? 1 : 0) == shape.k &&
               second.size(b.transposed ? 0 : 1) == shape.n,
           "factors [", first.sizes(), "], [", second.sizes(), "] and result [", d.sizes(),
           "] do not fit");
  MT_CHECK(d.stride(1) == 1 || shape.n == 1, "the result's rows must be contiguous");
  const Choice choice = choices().get(shape, first, second, d, adds);
  const at::Tensor workspace = make_workspace(d, choice.product->workspace_bytes(choice.algorithm));
  choice.product->run(choice.algorithm, first.const_data_ptr(), second.const_data_ptr(),
                      d.data_ptr(), adds, workspace.data_ptr(), current_stream(d));
}

}  // namespace moetron
