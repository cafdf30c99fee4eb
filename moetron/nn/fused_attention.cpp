#include "moetron/nn/fused_attention.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/kernels/attention.h"

namespace moetron {
namespace {

constexpr double kDropout = 0;
constexpr bool kCausal = true;

using Grads = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // of q, k, v, heads first

class FusedAttention : public PureOperation {
 public:
  FusedAttention(at::Tensor q, at::Tensor k, at::Tensor v, double softmax_scale)
      : q_(std::move(q)), k_(std::move(k)), v_(std::move(v)), softmax_scale_(softmax_scale) {}

  virtual at::Tensor forward() = 0;  // [B, T, N, V]; not a tensor that this holds

 protected:
  at::Tensor q_, k_, v_;  // [B, T, N, D], [B, T, G, D], [B, T, G, V]
  double softmax_scale_;
};

// It takes shared heads as they are, values narrower than queries, and any strides.
class CudnnAttention final : public FusedAttention {
 public:
  CudnnAttention(at::Tensor q, at::Tensor k, at::Tensor v, double softmax_scale,
                 std::optional<PackedDocuments> documents)
      : FusedAttention(std::move(q), std::move(k), std::move(v), softmax_scale),
        documents_(std::move(documents)) {}

  at::Tensor forward() override {
    output_ = attention_forward(q_, k_, v_, softmax_scale_, is_deterministic(), documents_);
    return output_.mixed.alias();
  }

  std::vector<at::Tensor> backward_input(const at::Tensor& d_mixed) override {
    const AttentionGrads grads = attention_backward(d_mixed, q_, k_, v_, output_, softmax_scale_,
                                                    is_deterministic(), documents_);
    return {grads.d_q, grads.d_k, grads.d_v};
  }

 private:
  static bool is_deterministic() { return at::globalContext().deterministicAlgorithms(); }

  std::optional<PackedDocuments> documents_;
  AttentionResult output_;
};

std::optional<PackedDocuments> packed(const DocumentBounds& documents) {
  if (!documents.defined()) return {};
  const std::vector<int64_t>& bounds = documents.on_host;
  int64_t longest = 0;
  for (size_t i = 1; i < bounds.size(); ++i) longest = std::max(longest, bounds[i] - bounds[i - 1]);
  return PackedDocuments{.bounds = documents.on_device, .longest = longest};
}

// By a kernel of ATen's, which wants the heads first.
class AtenAttention : public FusedAttention {
 public:
  using FusedAttention::FusedAttention;

  at::Tensor forward() override {
    mixed_ = run_forward().transpose(1, 2).narrow(-1, 0, v_.size(3)).contiguous();
    return mixed_.alias();
  }

  std::vector<at::Tensor> backward_input(const at::Tensor& d_mixed) override {
    const auto [d_q, d_k, d_v] = run_backward(d_mixed);
    return {shared(d_q, q_), shared(d_k, k_), shared(d_v, v_)};
  }

 protected:
  virtual at::Tensor run_forward() = 0;  // [B, N, T, width()]
  virtual Grads run_backward(const at::Tensor& d_mixed) = 0;

  int64_t repeats() const { return q_.size(2) / k_.size(2); }
  int64_t width() const { return common_width(q_, v_); }

  at::Tensor mixed_;     // [B, T, N, V]
  at::Tensor log_sums_;  // the kernel's own, one a query and head

 private:
  // d [B, heads, T, width] -> like x [B, T, G, width]: the sum over the query heads that share one.
  static at::Tensor shared(const at::Tensor& d, const at::Tensor& x) {
    const at::Tensor narrow = d.narrow(-1, 0, x.size(3));
    const int64_t copies = d.size(1) / x.size(2);
    if (copies == 1) return narrow.transpose(1, 2);
    return narrow.unflatten(1, {x.size(2), copies}).sum(2).transpose(1, 2);
  }
};

// It wants equal head counts and widths.
class CpuAttention final : public AtenAttention {
 public:
  using AtenAttention::AtenAttention;

 private:
  at::Tensor run_forward() override {
    at::Tensor mixed;
    std::tie(mixed, log_sums_) = at::_scaled_dot_product_flash_attention_for_cpu(
        heads_first(q_, 1, width()), heads_first(k_, repeats(), width()),
        heads_first(v_, repeats(), width()), kDropout, kCausal, /*attn_mask=*/{}, softmax_scale_);
    return mixed;
  }

  Grads run_backward(const at::Tensor& d_mixed) override {
    return at::_scaled_dot_product_flash_attention_for_cpu_backward(
        heads_first(d_mixed, 1, width()), heads_first(q_, 1, width()),
        heads_first(k_, repeats(), width()), heads_first(v_, repeats(), width()),
        heads_first(mixed_, 1, width()), log_sums_, kDropout, kCausal, /*attn_mask=*/{},
        softmax_scale_);
  }
};

// FlashAttention-2 (Dao, arXiv 2307.08691). It takes shared heads as they are, but wants equal
// widths.
class FlashAttention final : public AtenAttention {
 public:
  using AtenAttention::AtenAttention;

 private:
  at::Tensor run_forward() override {
    const auto out = at::_scaled_dot_product_flash_attention(
        heads_first(q_, 1, width()), heads_first(k_, 1, width()), heads_first(v_, 1, width()),
        kDropout, kCausal, /*return_debug_mask=*/false, softmax_scale_);
    log_sums_ = std::get<1>(out);
    seed_ = std::get<6>(out);
    offset_ = std::get<7>(out);
    return std::get<0>(out);
  }

  Grads run_backward(const at::Tensor& d_mixed) override {
    const at::Tensor none;  // no sequences of unequal length
    return at::_scaled_dot_product_flash_attention_backward(
        heads_first(d_mixed, 1, width()), heads_first(q_, 1, width()), heads_first(k_, 1, width()),
        heads_first(v_, 1, width()), heads_first(mixed_, 1, width()), log_sums_, none, none,
        q_.size(1), k_.size(1), kDropout, kCausal, seed_, offset_, softmax_scale_);
  }

  // Of a dropout that is not there.
  at::Tensor seed_;
  at::Tensor offset_;
};

std::shared_ptr<FusedAttention> choose_kernel(const at::Tensor& q, const at::Tensor& k,
                                              const at::Tensor& v, const DocumentBounds& documents,
                                              double softmax_scale) {
  if (has_attention(q, v)) {
    return std::make_shared<CudnnAttention>(q.detach(), k.detach(), v.detach(), softmax_scale,
                                            packed(documents));
  }
  MT_CHECK(!documents.defined(), "attention within documents of q [", q.sizes(), "] on ",
           q.device());
  const auto make = [&]<class Kernel>(std::type_identity<Kernel>) {
    return std::make_shared<Kernel>(q.detach(), k.detach(), v.detach(), softmax_scale);
  };
  if (q.is_cpu()) return make(std::type_identity<CpuAttention>());
  return make(std::type_identity<FlashAttention>());
}

}  // namespace

at::Tensor heads_first(const at::Tensor& x, int64_t repeats, int64_t width) {
  at::Tensor y = x.transpose(1, 2);  // [B, heads, T, width]
  if (repeats > 1) y = y.repeat_interleave(repeats, 1);
  return width > y.size(3) ? at::constant_pad_nd(y, {0, width - y.size(3)}) : y;
}

int64_t common_width(const at::Tensor& q, const at::Tensor& v) {
  return std::max(q.size(3), v.size(3));
}

const char* fastest_attention_name(const at::Tensor& q, const at::Tensor& v) {
  if (q.is_cpu()) return "ATen's flash attention for CPUs";
  if (has_attention(q, v)) return "cuDNN's flash attention";
  return has_fused_attention(q, v) ? "FlashAttention-2" : "ATen's scaled dot product";
}

bool has_fused_attention(const at::Tensor& q, const at::Tensor& v) {
  if (q.is_cpu()) return true;
  constexpr int64_t kWidest = 256;  // of FlashAttention-2
  return q.is_cuda() && q.scalar_type() == at::kBFloat16 && q.size(3) % 8 == 0 &&
         q.size(3) <= kWidest && v.size(3) <= q.size(3);
}

bool has_packed_attention(const at::Tensor& q, const at::Tensor& v) {
  return has_attention(q, v);
}

at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const DocumentBounds& documents, double softmax_scale, SegmentRun& run) {
  const auto operation = choose_kernel(q, k, v, documents, softmax_scale);
  at::Tensor mixed;
  {
    const at::NoGradGuard no_grad;
    mixed = operation->forward();
  }
  run.attach(mixed, operation, {q, k, v});
  return mixed;
}

}  // namespace moetron
