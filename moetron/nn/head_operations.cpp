#include "moetron/nn/head_operations.h"

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/kernels/column_sums.h"

namespace moetron {
namespace {

// [B, T, ...] -> [B * T, ...]
at::Tensor by_token(const at::Tensor& x) {
  return x.flatten(0, 1);
}

// [B * T, ...] -> [B, T, ...], as `like`
at::Tensor by_sequence(const at::Tensor& x, const at::Tensor& like) {
  return x.unflatten(0, {like.size(0), like.size(1)});
}

at::Tensor value_of(const Parameter* parameter) {
  return parameter == nullptr ? at::Tensor() : parameter->value();
}

class NormAndRotate final : public JointOperation {
 public:
  NormAndRotate(at::Tensor qkv, int64_t num_heads, Parameter* q_norm, Parameter* k_norm,
                Rotation rotation)
      : qkv_(std::move(qkv)),
        num_heads_(num_heads),
        q_norm_(q_norm),
        k_norm_(k_norm),
        rotation_(std::move(rotation)) {}

  QueriesKeysValues forward(double eps) {
    const NormedHeads heads = norm_rotate_forward(by_token(qkv_), num_heads_, value_of(q_norm_),
                                                  value_of(k_norm_), eps, rotation_);
    inverse_rms_ = heads.inverse_rms;
    const int64_t num_kv_heads = heads.k.size(1);
    return {by_sequence(heads.q, qkv_), by_sequence(heads.k, qkv_),
            qkv_.narrow(2, num_heads_ + num_kv_heads, num_kv_heads)};
  }

  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) override {
    for (const at::Tensor& d : d_outputs) {
      MT_CHECK(d.defined(), "attention gives a gradient to queries, keys and values");
    }
    NormedHeadGrads grads = norm_rotate_backward(
        by_token(d_outputs[0]), by_token(d_outputs[1]), by_token(d_outputs[2]), by_token(qkv_),
        inverse_rms_, value_of(q_norm_), value_of(k_norm_), rotation_);
    d_q_norm_parts_ = std::move(grads.d_q_norm_parts);
    d_k_norm_parts_ = std::move(grads.d_k_norm_parts);
    const at::Tensor d_qkv = by_sequence(grads.d_qkv, qkv_);
    qkv_.reset();
    return {d_qkv};
  }

  bool has_weights() const override {
    return q_norm_ != nullptr && (q_norm_->needs_grad() || k_norm_->needs_grad());
  }
  void add_weight_grads() override {
    if (q_norm_->needs_grad()) add_column_sums(q_norm_->grad(), d_q_norm_parts_);
    if (k_norm_->needs_grad()) add_column_sums(k_norm_->grad(), d_k_norm_parts_);
  }

 private:
  at::Tensor qkv_;  // [B, T, N + 2 G, D]
  int64_t num_heads_;
  Parameter* q_norm_;
  Parameter* k_norm_;
  Rotation rotation_;
  at::Tensor inverse_rms_;
  at::Tensor d_q_norm_parts_, d_k_norm_parts_;  // until the weights' turn
};

class RotateQueries final : public PureOperation {
 public:
  RotateQueries(int64_t rotated, Rotation rotation)
      : rotated_(rotated), rotation_(std::move(rotation)) {}

  std::vector<at::Tensor> backward_input(const at::Tensor& d_q) override {
    const at::Tensor d = d_q.contiguous();
    rotate_in_place(by_token(d), rotated_, rotation_, /*is_gradient=*/true);
    return {d};
  }

 private:
  int64_t rotated_;
  Rotation rotation_;
};

class JoinLatentKeys final : public JointOperation {
 public:
  JoinLatentKeys(int64_t nope, Rotation rotation) : nope_(nope), rotation_(std::move(rotation)) {}

  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) override {
    const at::Tensor &d_keys = d_outputs[0], &d_values = d_outputs[1];
    MT_CHECK(d_keys.defined() && d_values.defined(),
             "attention gives a gradient to keys and values");
    const LatentKeyGrads grads =
        latent_keys_backward(by_token(d_keys), by_token(d_values), nope_, rotation_);
    return {by_sequence(grads.d_up, d_keys), by_sequence(grads.d_k_rope, d_keys).unsqueeze(2)};
  }
  bool has_weights() const override { return false; }
  void add_weight_grads() override {}

 private:
  int64_t nope_;
  Rotation rotation_;
};

class SplitColumns final : public JointOperation {
 public:
  SplitColumns(at::TensorOptions options, int64_t rows, std::vector<int64_t> widths)
      : options_(options), rows_(rows), widths_(std::move(widths)) {}

  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) override {
    std::vector<at::Tensor> parts = d_outputs;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (!parts[i].defined()) parts[i] = at::zeros({rows_, widths_[i]}, options_);
    }
    return {at::cat(parts, 1)};
  }
  bool has_weights() const override { return false; }
  void add_weight_grads() override {}

 private:
  at::TensorOptions options_;
  int64_t rows_;
  std::vector<int64_t> widths_;
};

}  // namespace

QueriesKeysValues norm_and_rotate(const at::Tensor& qkv, int64_t num_heads, Parameter* q_norm,
                                  Parameter* k_norm, double eps, const Rotation& rotation,
                                  SegmentRun& run) {
  const auto operation =
      std::make_shared<NormAndRotate>(qkv.detach(), num_heads, q_norm, k_norm, rotation);
  QueriesKeysValues out;
  {
    const at::NoGradGuard no_grad;
    out = operation->forward(eps);
  }
  run.attach({&out.queries, &out.keys, &out.values}, operation, {qkv});
  return out;
}

at::Tensor rotate_queries(const at::Tensor& q, int64_t rotated, const Rotation& rotation,
                          SegmentRun& run) {
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = q.detach();
    rotate_in_place(by_token(y), rotated, rotation, /*is_gradient=*/false);
  }
  run.attach(y, std::make_shared<RotateQueries>(rotated, rotation), {q});
  return y;
}

QueriesKeysValues join_latent_keys(const at::Tensor& up, const at::Tensor& k_rope, int64_t nope,
                                   const Rotation& rotation, SegmentRun& run) {
  QueriesKeysValues out;
  {
    const at::NoGradGuard no_grad;
    const LatentKeys joined = latent_keys_forward(
        by_token(up.detach()), by_token(k_rope.detach()).squeeze(1), nope, rotation);
    out.keys = by_sequence(joined.keys, up);
    out.values = by_sequence(joined.values, up);
  }
  run.attach({&out.keys, &out.values}, std::make_shared<JoinLatentKeys>(nope, rotation),
             {up, k_rope});
  return out;
}

std::vector<at::Tensor> split_columns(const at::Tensor& x, const std::vector<int64_t>& widths,
                                      SegmentRun& run) {
  std::vector<at::Tensor> parts;
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& part : x.detach().split_with_sizes(widths, 1)) {
      parts.push_back(part.detach());
    }
  }
  std::vector<at::Tensor*> outputs;
  for (at::Tensor& part : parts) outputs.push_back(&part);
  run.attach(outputs, std::make_shared<SplitColumns>(x.options(), x.size(0), widths), {x});
  return parts;
}

}  // namespace moetron
