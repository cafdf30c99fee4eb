#include <optional>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/arch/rope.h"
#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/bench/bench_ops.h"
#include "moetron/kernels/adamw.h"
#include "moetron/kernels/cross_entropy.h"
#include "moetron/kernels/fp8_product.h"
#include "moetron/kernels/grad_norm.h"
#include "moetron/kernels/heads.h"
#include "moetron/kernels/norm.h"
#include "moetron/kernels/product.h"
#include "moetron/kernels/router.h"
#include "moetron/kernels/row_map.h"
#include "moetron/kernels/swiglu.h"
#include "moetron/models/family.h"
#include "moetron/nn/fused_attention.h"

namespace moetron {
namespace {

using Visit = std::function<void(const KernelCase&)>;
using Tensors = std::initializer_list<at::Tensor>;

constexpr double kEps = 1e-6;
constexpr at::ScalarType kE4m3 = at::kFloat8_e4m3fn;

at::Tensor random(at::IntArrayRef sizes, at::ScalarType dtype = at::kBFloat16) {
  return at::randn(sizes, at::TensorOptions(at::kCUDA).dtype(dtype));
}

// What the tensors hold, each element once.
double bytes_of(Tensors tensors) {
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

// The residual stream's norms come with a sum; those of latents do not.
void visit_norm(int64_t tokens, int64_t size, bool is_latent, const Visit& visit) {
  const at::Tensor x = random({tokens, size}), weight = random({size}),
                   d_y = random({tokens, size});
  const at::Tensor other = is_latent ? at::Tensor() : random({tokens, size});
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

Rotation rotation_of(const ModelConfig& model, int64_t tokens) {
  Rotation rotation;
  rotation.positions = at::arange(tokens, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  rotation.inverse_frequencies = at::tensor(inverse_frequencies(model.rope)).to(at::kCUDA);
  rotation.scale = rope_cos_sin_scale(model.rope);
  rotation.neighbours = model.rope.interleaved;
  return rotation;
}

void visit_grouped_heads(const ModelConfig& model, int64_t tokens, const Visit& visit) {
  const int64_t n = model.num_attention_heads, g = model.num_key_value_heads, d = model.head_dim;
  const Rotation rotation = rotation_of(model, tokens);
  const at::Tensor qkv = random({tokens, n + 2 * g, d});
  const at::Tensor q_norm = model.qk_norm ? random({d}) : at::Tensor();
  const at::Tensor k_norm = model.qk_norm ? random({d}) : at::Tensor();
  const at::Tensor d_q = random({tokens, n, d}), d_k = random({tokens, g, d}),
                   d_v = random({tokens, g, d});
  const at::Tensor turned = qkv.narrow(1, 0, n + g);
  const auto forward = [&] { return norm_rotate_forward(qkv, n, q_norm, k_norm, kEps, rotation); };
  const NormedHeads out = forward();
  visit({"norm_rotate_forward", shape_text(qkv), bytes_of({turned, out.q, out.k, out.inverse_rms}),
         0, forward});
  const at::Tensor normed = model.qk_norm ? turned : at::Tensor();
  visit({"norm_rotate_backward", shape_text(qkv),
         bytes_of({d_q, d_k, d_v, normed, out.inverse_rms, qkv}), 0, [&] {
           norm_rotate_backward(d_q, d_k, d_v, qkv, out.inverse_rms, q_norm, k_norm, rotation);
         }});
}

void visit_latent_heads(const ModelConfig& model, int64_t tokens, const Visit& visit) {
  const MlaConfig& mla = *model.mla;
  const int64_t n = model.num_attention_heads, nope = mla.qk_nope_head_dim,
                rope = mla.qk_rope_head_dim;
  const Rotation rotation = rotation_of(model, tokens);
  const at::Tensor q = random({tokens, n, nope + rope});
  const at::Tensor turned = q.narrow(2, nope, rope);
  for (const bool is_gradient : {false, true}) {
    visit({is_gradient ? "rotate_in_place, back" : "rotate_in_place", shape_text(q),
           bytes_of({turned, turned}), 0,
           [&] { rotate_in_place(q, rope, rotation, is_gradient); }});
  }
  const at::Tensor up = random({tokens, n, nope + mla.v_head_dim});
  const at::Tensor k_rope =
      random({tokens, mla.kv_lora_rank + rope}).narrow(1, mla.kv_lora_rank, rope);
  const LatentKeys out = latent_keys_forward(up, k_rope, nope, rotation);
  visit({"latent_keys_forward", shape_text(up), bytes_of({up, k_rope, out.keys, out.values}), 0,
         [&] { latent_keys_forward(up, k_rope, nope, rotation); }});
  const at::Tensor d_keys = random(out.keys.sizes()), d_values = random(out.values.sizes());
  visit({"latent_keys_backward", shape_text(up), bytes_of({d_keys, d_values, up, k_rope}), 0,
         [&] { latent_keys_backward(d_keys, d_values, nope, rotation); }});
}

// FLOPs as published ones are counted: half of the square is masked, and the backward is 2.5 times
// the forward.
void visit_attention(const ModelConfig& model, int64_t batch, int64_t seq, const Visit& visit) {
  const int64_t n = model.num_attention_heads, d = model.head_dim, v_dim = model.value_head_dim();
  const int64_t groups = model.mla ? n : model.num_key_value_heads;
  const at::Tensor q = random({batch, seq, n, d}), k = random({batch, seq, groups, d}),
                   v = random({batch, seq, groups, v_dim}),
                   d_mixed = random({batch, seq, n, v_dim});
  const double flops = product_flops(batch * seq, seq, n * (d + v_dim)) / 2;
  const double scale = attention_softmax_scale(model);
  std::optional<SegmentRun> run;
  const auto forward = [&] {
    run.emplace(/*with_grad=*/true);
    run->output(fused_attention(run->input(q), run->input(k), run->input(v), {}, scale, *run));
  };
  const std::string shape = concat(shape_text(q), " ", shape_text(k));
  visit({"attention forward", shape, bytes_of({q, k, v, d_mixed}), flops, forward});
  visit({"attention backward", shape, bytes_of({d_mixed, d_mixed, q, k, v, q, k, v}), 2.5 * flops,
         [&] { run->backward({d_mixed}); }, forward});
}

struct Linear {
  const char* name;
  int64_t in, out;
};

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

// On values that were quantised before: what they cost is not in the time.
void visit_fp8_product(const Linear& linear, int64_t tokens, const Visit& visit) {
  const at::Tensor x = random({tokens, linear.in}), d_y = random({tokens, linear.out});
  const Fp8Rows x_rows = quantise_rows(x, kE4m3), d_y_rows = quantise_rows(d_y, kE4m3);
  const Fp8Blocks x_columns = columns_of(x_rows).blocks, d_y_columns = columns_of(d_y_rows).blocks;
  const auto [weight, back] = quantise_weight(random({linear.out, linear.in}), kE4m3);
  const double flops = product_flops(tokens, linear.in, linear.out);
  const auto shape = concat("[", tokens, ", ", linear.in, "] -> ", linear.out);
  const auto name = [&](const char* what) { return concat(linear.name, " fp8 ", what); };
  visit({name("forward"), shape, bytes_of({x_rows.values, weight.values, d_y}), flops,
         [&] { fp8_product(x_rows, weight); }});
  visit({name("backward"), shape, bytes_of({d_y_rows.values, weight.values, x}), flops,
         [&] { fp8_product(d_y_rows, back); }});
  const at::Tensor sum = at::empty({linear.out, linear.in}, x.options().dtype(at::kFloat));
  const double bytes = bytes_of({x_columns.values, d_y_columns.values, sum});
  visit({name("weight_grad, first"), shape, bytes, flops,
         [&] { fp8_weight_grad_product(sum, d_y_columns, x_columns, /*adds=*/false); }});
  visit({name("weight_grad, adds"), shape, bytes + bytes_of({sum}), flops,
         [&] { fp8_weight_grad_product(sum, d_y_columns, x_columns, /*adds=*/true); }});
}

void visit_dense_product(const Linear& linear, int64_t tokens, const Visit& visit) {
  const at::Tensor x = random({tokens, linear.in}), weight = random({linear.out, linear.in}),
                   d_y = random({tokens, linear.out});
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

// Returns the choices of natural routing, which everything behind it works on.
RouterScores visit_router(const ModelConfig& model, int64_t tokens, const Visit& visit) {
  const MoeConfig& moe = *model.moe;
  const int64_t num_experts = moe.num_experts;
  const at::ScalarType dtype = moe.router_fp32 ? at::kFloat : at::kBFloat16;
  const RouterRule rule = router_settings(model, /*normalize_eps=*/0);
  const at::Tensor logits = random({tokens, num_experts}, dtype);
  const at::Tensor bias =
      moe.expert_bias ? random({num_experts}, at::kFloat).mul_(0.01) : at::Tensor();
  const at::Tensor counts = at::zeros({num_experts}, logits.options().dtype(at::kLong));
  const at::Tensor d_weights = random({tokens, moe.top_k}, at::kFloat);
  if (moe.router_fp32) {
    const at::Tensor x = random({tokens, model.hidden_size});
    const at::Tensor weight = random({num_experts, model.hidden_size});
    visit({"product_in_fp32 (router)", concat(shape_text(x), " -> ", num_experts),
           bytes_of({x, weight, logits}), product_flops(tokens, model.hidden_size, num_experts),
           [&] { product_in_fp32(x, weight); }});
  }
  const auto forward = [&] { return router_forward(logits, bias, {}, rule, counts, tokens); };
  RouterScores out = forward();
  visit({"router_forward", shape_text(logits),
         bytes_of({logits, bias, out.scores, out.chosen, out.weights}), 0, forward});
  visit({"router_backward", shape_text(logits),
         bytes_of({d_weights, out.scores, out.chosen, out.weights, logits}), 0,
         [&] { router_backward(d_weights, {}, out, rule, dtype); }});
  return out;
}

void visit_row_map(const ModelConfig& model, const RouterScores& scores, const RowMap& map,
                   const Visit& visit) {
  const MoeConfig& moe = *model.moe;
  const at::Tensor& chosen = scores.chosen;
  const int64_t tokens = chosen.size(0), num_rows = chosen.numel();
  const at::Tensor x = random({tokens, model.hidden_size}),
                   rows = random({num_rows, model.hidden_size});
  const at::Tensor values = random({num_rows}, at::kFloat);
  visit({"build_row_map", shape_text(chosen),
         bytes_of({chosen, map.ends, map.choice_of_row, map.row_of_choice}), 0,
         [&] { build_row_map(chosen, 0, moe.num_experts); }});
  visit({"gather_rows", concat(shape_text(x), " -> ", num_rows),
         bytes_of({x, map.row_of_choice, rows}), 0,
         [&] { gather_rows(x, map.row_of_choice, num_rows); }});
  visit({"sum_rows", concat(shape_text(rows), " -> ", tokens),
         bytes_of({rows, map.row_of_choice, x}), 0, [&] { sum_rows(rows, map.row_of_choice); }});
  visit({"gather_choices", shape_text(chosen),
         bytes_of({scores.weights, map.choice_of_row, values}), 0,
         [&] { gather_choices(scores.weights, map.choice_of_row, num_rows); }});
  visit({"scatter_choices", shape_text(chosen),
         bytes_of({values, map.row_of_choice, scores.weights}), 0,
         [&] { scatter_choices(values, map.row_of_choice); }});
}

// weights: of the routed experts' rows; undefined for a shared expert.
void visit_swiglu(int64_t rows, int64_t width, const at::Tensor& weights, const Visit& visit) {
  const at::Tensor gate_up = random({rows, 2 * width}), y = random({rows, width});
  visit({"swiglu_forward", shape_text(gate_up), bytes_of({gate_up, weights, y}), 0,
         [&] { swiglu_forward(gate_up, weights); }});
  visit({"swiglu_backward", shape_text(gate_up),
         bytes_of({gate_up, weights, y, gate_up, weights, y}), 0,
         [&] { swiglu_backward(gate_up, weights, y); }});
}

void visit_grouped_product(const Linear& linear, int64_t rows, const at::Tensor& ends,
                           const Visit& visit) {
  const at::Tensor x = random({rows, linear.in}), d_y = random({rows, linear.out});
  const at::Tensor weight = random({ends.size(0), linear.out, linear.in});
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

void visit_fp8_grouped_product(const Linear& linear, int64_t rows, const at::Tensor& ends,
                               const Visit& visit) {
  const at::Tensor x = random({rows, linear.in}), d_y = random({rows, linear.out});
  const Fp8Rows x_rows = quantise_rows(x, kE4m3), d_y_rows = quantise_rows(d_y, kE4m3);
  const Fp8Columns x_columns = columns_of(x_rows, ends), d_y_columns = columns_of(d_y_rows, ends);
  const auto [weight, back] = quantise_weight(random({ends.size(0), linear.out, linear.in}), kE4m3);
  const double flops = product_flops(rows, linear.in, linear.out);
  const auto shape =
      concat(ends.size(0), " x [", linear.in, " -> ", linear.out, "], ", rows, " rows");
  const auto name = [&](const char* what) { return concat(linear.name, " grouped fp8 ", what); };
  visit({name("forward"), shape, bytes_of({x_rows.values, weight.values, d_y}), flops,
         [&] { fp8_grouped_rows_product(x_rows, weight, ends); }});
  visit({name("backward"), shape, bytes_of({d_y_rows.values, weight.values, x}), flops,
         [&] { fp8_grouped_rows_product(d_y_rows, back, ends); }});
  const at::Tensor sum =
      at::empty({ends.size(0), linear.out, linear.in}, x.options().dtype(at::kFloat));
  const double bytes = bytes_of({x_columns.blocks.values, d_y_columns.blocks.values, sum});
  visit({name("weight_grad, first"), shape, bytes, flops,
         [&] { fp8_grouped_weight_grad_product(sum, d_y_columns, x_columns, /*adds=*/false); }});
  visit({name("weight_grad, adds"), shape, bytes + bytes_of({sum}), flops,
         [&] { fp8_grouped_weight_grad_product(sum, d_y_columns, x_columns, /*adds=*/true); }});
}

void visit_experts(const ModelConfig& model, int64_t tokens, const Visit& visit) {
  const MoeConfig& moe = *model.moe;
  const int64_t width = moe.expert_intermediate_size, num_rows = tokens * moe.top_k;
  const RouterScores scores = visit_router(model, tokens, visit);
  const RowMap map = build_row_map(scores.chosen, 0, moe.num_experts);
  visit_row_map(model, scores, map, visit);
  visit_swiglu(num_rows, width, gather_choices(scores.weights, map.choice_of_row, num_rows), visit);
  if (moe.shared_intermediate_size > 0) {
    visit_swiglu(tokens, moe.shared_intermediate_size, {}, visit);
  }
  for (const Linear& linear : {Linear{"gate_up", model.hidden_size, 2 * width},
                               Linear{"down", width, model.hidden_size}}) {
    visit_grouped_product(linear, num_rows, map.ends, visit);
    visit_fp8_grouped_product(linear, num_rows, map.ends, visit);
  }
}

void visit_loss(const ModelConfig& model, int64_t tokens, const Visit& visit) {
  const at::Tensor logits = random({tokens, model.vocab_size});
  const at::Tensor labels =
      at::randint(model.vocab_size, {tokens}, logits.options().dtype(at::kLong));
  constexpr int64_t kIgnored = -100;
  const double scale = 1 / static_cast<double>(tokens);
  visit({"cross_entropy_in_place", shape_text(logits), bytes_of({logits, labels, logits}), 0,
         [&] { cross_entropy_in_place(logits, labels, kIgnored, scale); }});
}

// Of one layer's largest parameter, the experts' first matrices.
void visit_optimizer(const ModelConfig& model, const Visit& visit) {
  const MoeConfig& moe = *model.moe;
  const int64_t size = moe.num_experts * 2 * moe.expert_intermediate_size * model.hidden_size;
  const at::Tensor value = random({size});
  const at::Tensor master = value.to(at::kFloat), grad = random({size}, at::kFloat);
  const at::Tensor mean = random({size}, at::kFloat), square = mean.square();
  const AdamWCoefficients coefficients{.grad_scale = 1,
                                       .keep = 1 - 1e-7f,
                                       .one_minus_beta1 = 0.1f,
                                       .beta2 = 0.999f,
                                       .one_minus_beta2 = 0.001f,
                                       .eps = 1e-8f,
                                       .minus_step_size = -1e-5f};
  visit({"adamw_update_on_gpu", shape_text(value),
         bytes_of({grad, master, master, mean, mean, square, square, value}), 0,
         [&] { adamw_update_on_gpu(value, master, mean, square, grad, coefficients); }});
  SumsOfSquares sums({grad});
  visit({"SumsOfSquares", shape_text(grad), bytes_of({grad}), 0, [&] { sums.compute(); }});
}

}  // namespace

void visit_kernel_cases(const ModelConfig& model, int64_t batch, int64_t seq, const Visit& visit) {
  const int64_t tokens = batch * seq;
  visit_norm(tokens, model.hidden_size, /*is_latent=*/false, visit);
  if (model.mla) {
    visit_norm(tokens, model.mla->q_lora_rank, /*is_latent=*/true, visit);
    visit_norm(tokens, model.mla->kv_lora_rank, /*is_latent=*/true, visit);
    visit_latent_heads(model, tokens, visit);
  } else {
    visit_grouped_heads(model, tokens, visit);
  }
  visit_attention(model, batch, seq, visit);
  visit_experts(model, tokens, visit);
  for (const Linear& linear : dense_products(model)) {
    visit_dense_product(linear, tokens, visit);
    visit_fp8_product(linear, tokens, visit);
  }
  visit_loss(model, tokens, visit);
  visit_optimizer(model, visit);
}

}  // namespace moetron
