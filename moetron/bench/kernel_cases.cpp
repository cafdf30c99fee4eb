#include "moetron/bench/kernel_cases.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/norm.h"
#include "moetron/kernels/product.h"
#include "moetron/kernels/row_map.h"
#include "moetron/kernels/swiglu.h"

namespace moetron {
namespace {

constexpr double kEps = 1e-6;

}  // namespace

double KernelCase::floor(const Ceilings& ceilings) const {
  return std::max(bytes / ceilings.copied_bytes, flops / ceilings.product_flops);
}

bool KernelCase::is_memory_bound(const Ceilings& ceilings) const {
  return bytes / ceilings.copied_bytes >= flops / ceilings.product_flops;
}

at::Tensor CasePlace::random(at::IntArrayRef sizes) const {
  return at::randn(sizes, at::TensorOptions(device).dtype(dtype));
}

double bytes_of(std::initializer_list<at::Tensor> tensors) {
  double bytes = 0;
  for (const at::Tensor& x : tensors) {
    if (x.defined())
      bytes += static_cast<double>(x.numel()) * static_cast<double>(x.element_size());
  }
  return bytes;
}

double product_flops(int64_t rows, int64_t in, int64_t out) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out);
}

std::string shape_text(const at::Tensor& x) {
  return concat(x.sizes());
}

void visit_norm(const CasePlace& place, int64_t tokens, int64_t size, bool is_latent,
                const VisitCase& visit) {
  const at::Tensor x = place.random({tokens, size}), weight = place.random({size}),
                   d_y = place.random({tokens, size});
  const at::Tensor other = is_latent ? at::Tensor() : place.random({tokens, size});
  const std::string shape = shape_text(x);
  const RmsNormed plain = rms_norm_forward(x, {}, weight, kEps);
  visit({"rms_norm_forward", shape, bytes_of({x, weight, plain.y, plain.inverse_rms}), 0,
         [&] { rms_norm_forward(x, {}, weight, kEps); }});
  if (!is_latent) {
    const RmsNormed both = rms_norm_forward(x, other, weight, kEps);
    visit({"rms_norm_forward of a sum", shape,
           bytes_of({x, other, weight, both.sum, both.y, both.inverse_rms}), 0,
           [&] { rms_norm_forward(x, other, weight, kEps); }});
  }
  visit({is_latent ? "rms_norm_backward" : "rms_norm_backward of a sum", shape,
         bytes_of({d_y, other, x, plain.inverse_rms, weight, x}), 0,
         [&] { rms_norm_backward(d_y, other, x, plain.inverse_rms, weight); }});
}

std::vector<Linear> dense_products(const ModelConfig& model) {
  const int64_t hidden = model.hidden_size, n = model.num_attention_heads;
  const int64_t mixed = n * model.value_head_dim();
  std::vector<Linear> products;
  if (model.mla) {
    const MlaConfig& mla = *model.mla;
    products = {{"q_a", hidden, mla.q_lora_rank},
                {"q_b", mla.q_lora_rank, n * model.head_dim},
                {"kv_a", hidden, mla.kv_lora_rank + mla.qk_rope_head_dim},
                {"kv_b", mla.kv_lora_rank, n * (mla.qk_nope_head_dim + mla.v_head_dim)}};
  } else {
    products = {{"qkv", hidden, (n + 2 * model.num_key_value_heads) * model.head_dim}};
  }
  products.push_back({"o", mixed, hidden});
  if (const int64_t width = model.moe->shared_intermediate_size; width > 0) {
    products.push_back({"shared gate_up", hidden, 2 * width});
    products.push_back({"shared down", width, hidden});
  }
  products.push_back({"head", hidden, model.vocab_size});
  return products;
}

void visit_dense_product(const CasePlace& place, const Linear& linear, int64_t tokens,
                         const VisitCase& visit) {
  const at::Tensor x = place.random({tokens, linear.in}),
                   weight = place.random({linear.out, linear.in}),
                   d_y = place.random({tokens, linear.out});
  const double flops = product_flops(tokens, linear.in, linear.out);
  const auto shape = concat("[", tokens, ", ", linear.in, "] -> ", linear.out);
  const auto name = [&](const char* what) { return concat(linear.name, " ", what); };
  visit({name("forward"), shape, bytes_of({x, weight, d_y}), flops,
         [&] { product(x, weight, /*transpose_weight=*/true); }});
  visit({name("backward"), shape, bytes_of({x, weight, d_y}), flops,
         [&] { product(d_y, weight, /*transpose_weight=*/false); }});
  const at::Tensor sum = at::empty(weight.sizes(), weight.options().dtype(at::kFloat));
  visit({name("weight_grad, first"), shape, bytes_of({x, d_y, sum}), flops,
         [&] { weight_grad_product(sum, d_y, x, /*adds=*/false); }});
  visit({name("weight_grad, adds"), shape, bytes_of({x, d_y, sum, sum}), flops,
         [&] { weight_grad_product(sum, d_y, x, /*adds=*/true); }});
}

void visit_row_moves(const CasePlace& place, int64_t hidden, const at::Tensor& row_of_choice,
                     const VisitCase& visit) {
  const int64_t tokens = row_of_choice.size(0), num_rows = row_of_choice.numel();
  const at::Tensor x = place.random({tokens, hidden}), rows = place.random({num_rows, hidden});
  visit({"gather_rows", concat(shape_text(x), " -> ", num_rows), bytes_of({x, row_of_choice, rows}),
         0, [&] { gather_rows(x, row_of_choice, num_rows); }});
  visit({"sum_rows", concat(shape_text(rows), " -> ", tokens), bytes_of({rows, row_of_choice, x}),
         0, [&] { sum_rows(rows, row_of_choice); }});
}

void visit_swiglu(const CasePlace& place, int64_t rows, int64_t width, const at::Tensor& weights,
                  const VisitCase& visit) {
  const at::Tensor gate_up = place.random({rows, 2 * width}), y = place.random({rows, width});
  visit({"swiglu_forward", shape_text(gate_up), bytes_of({gate_up, weights, y}), 0,
         [&] { swiglu_forward(gate_up, weights); }});
  visit({"swiglu_backward", shape_text(gate_up),
         bytes_of({gate_up, weights, y, gate_up, weights, y}), 0,
         [&] { swiglu_backward(gate_up, weights, y); }});
}

void visit_grouped_product(const CasePlace& place, const Linear& linear, int64_t rows,
                           const at::Tensor& ends, const VisitCase& visit) {
  const at::Tensor x = place.random({rows, linear.in}), d_y = place.random({rows, linear.out});
  const at::Tensor weight = place.random({ends.size(0), linear.out, linear.in});
  const double flops = product_flops(rows, linear.in, linear.out);
  const auto shape =
      concat(ends.size(0), " x [", linear.in, " -> ", linear.out, "], ", rows, " rows");
  const auto name = [&](const char* what) { return concat(linear.name, " ", what); };
  const double bytes = bytes_of({x, weight, d_y});
  visit({name("grouped product, forward"), shape, bytes, flops,
         [&] { grouped_rows_product(x, weight, ends, /*transpose_weight=*/true); }});
  visit({name("grouped product, backward"), shape, bytes, flops,
         [&] { grouped_rows_product(d_y, weight, ends, /*transpose_weight=*/false); }});
  if (!has_grouped_weight_grad(d_y, x)) return;
  const at::Tensor sum = at::empty(weight.sizes(), weight.options().dtype(at::kFloat));
  visit({name("grouped_weight_grad, first"), shape, bytes_of({x, d_y, sum}), flops,
         [&] { grouped_weight_grad_product(sum, d_y, x, ends, /*adds=*/false); }});
  visit({name("grouped_weight_grad, adds"), shape, bytes_of({x, d_y, sum, sum}), flops,
         [&] { grouped_weight_grad_product(sum, d_y, x, ends, /*adds=*/true); }});
}

}  // namespace moetron
