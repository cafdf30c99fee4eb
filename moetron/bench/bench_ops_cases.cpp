#include <optional>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/arch/rope.h"
#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/bench/attention_cases.h"
#include "moetron/bench/bench_ops.h"
#include "moetron/bench/kernel_cases.h"
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

constexpr double kEps = 1e-6;
const CasePlace kGpu{at::kCUDA, at::kBFloat16};
constexpr at::ScalarType kE4m3 = at::kFloat8_e4m3fn;

at::Tensor random(at::IntArrayRef sizes, at::ScalarType dtype = at::kBFloat16) {
  return CasePlace{kGpu.device, dtype}.random(sizes);
}

Rotation rotation_of(const ModelConfig& model, int64_t tokens) {
  Rotation rotation;
  rotation.positions = at::arange(tokens, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  rotation.inverse_frequencies = at::tensor(inverse_frequencies(model.rope)).to(at::kCUDA);
  rotation.scale = rope_cos_sin_scale(model.rope);
  rotation.neighbours = model.rope.interleaved;
  return rotation;
}

void visit_grouped_heads(const ModelConfig& model, int64_t tokens, const VisitCase& visit) {
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

void visit_latent_heads(const ModelConfig& model, int64_t tokens, const VisitCase& visit) {
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

// On values that were quantised before: what they cost is not in the time.
void visit_fp8_product(const Linear& linear, int64_t tokens, const VisitCase& visit) {
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

// Returns the choices of natural routing, which everything behind it works on.
RouterScores visit_router(const ModelConfig& model, int64_t tokens, const VisitCase& visit) {
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
                   const VisitCase& visit) {
  const MoeConfig& moe = *model.moe;
  const at::Tensor& chosen = scores.chosen;
  const int64_t num_rows = chosen.numel();
  const at::Tensor values = random({num_rows}, at::kFloat);
  visit({"build_row_map", shape_text(chosen),
         bytes_of({chosen, map.ends, map.choice_of_row, map.row_of_choice}), 0,
         [&] { build_row_map(chosen, 0, moe.num_experts); }});
  visit_row_moves(kGpu, model.hidden_size, map.row_of_choice, visit);
  visit({"gather_choices", shape_text(chosen),
         bytes_of({scores.weights, map.choice_of_row, values}), 0,
         [&] { gather_choices(scores.weights, map.choice_of_row, num_rows); }});
  visit({"scatter_choices", shape_text(chosen),
         bytes_of({values, map.row_of_choice, scores.weights}), 0,
         [&] { scatter_choices(values, map.row_of_choice); }});
}

void visit_fp8_grouped_product(const Linear& linear, int64_t rows, const at::Tensor& ends,
                               const VisitCase& visit) {
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

void visit_experts(const ModelConfig& model, int64_t tokens, const VisitCase& visit) {
  const MoeConfig& moe = *model.moe;
  const int64_t width = moe.expert_intermediate_size, num_rows = tokens * moe.top_k;
  const RouterScores scores = visit_router(model, tokens, visit);
  const RowMap map = build_row_map(scores.chosen, 0, moe.num_experts);
  visit_row_map(model, scores, map, visit);
  visit_swiglu(kGpu, num_rows, width, gather_choices(scores.weights, map.choice_of_row, num_rows),
               visit);
  if (moe.shared_intermediate_size > 0) {
    visit_swiglu(kGpu, tokens, moe.shared_intermediate_size, {}, visit);
  }
  for (const Linear& linear : {Linear{"gate_up", model.hidden_size, 2 * width},
                               Linear{"down", width, model.hidden_size}}) {
    visit_grouped_product(kGpu, linear, num_rows, map.ends, visit);
    visit_fp8_grouped_product(linear, num_rows, map.ends, visit);
  }
}

void visit_loss(const ModelConfig& model, int64_t tokens, const VisitCase& visit) {
  const at::Tensor logits = random({tokens, model.vocab_size});
  const at::Tensor labels =
      at::randint(model.vocab_size, {tokens}, logits.options().dtype(at::kLong));
  constexpr int64_t kIgnored = -100;
  const double scale = 1 / static_cast<double>(tokens);
  visit({"cross_entropy_in_place", shape_text(logits), bytes_of({logits, labels, logits}), 0,
         [&] { cross_entropy_in_place(logits, labels, kIgnored, scale); }});
}

// Of one layer's largest parameter, the experts' first matrices.
void visit_optimizer(const ModelConfig& model, const VisitCase& visit) {
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

void visit_kernel_cases(const ModelConfig& model, int64_t batch, int64_t seq,
                        const VisitCase& visit) {
  const int64_t tokens = batch * seq;
  visit_norm(kGpu, tokens, model.hidden_size, /*is_latent=*/false, visit);
  if (model.mla) {
    visit_norm(kGpu, tokens, model.mla->q_lora_rank, /*is_latent=*/true, visit);
    visit_norm(kGpu, tokens, model.mla->kv_lora_rank, /*is_latent=*/true, visit);
    visit_latent_heads(model, tokens, visit);
  } else {
    visit_grouped_heads(model, tokens, visit);
  }
  visit_attention(kGpu, model, batch, seq, visit);
  visit_packed_attention(kGpu, model, batch, seq, visit);
  visit_experts(model, tokens, visit);
  for (const Linear& linear : dense_products(model)) {
    visit_dense_product(kGpu, linear, tokens, visit);
    visit_fp8_product(linear, tokens, visit);
  }
  visit_loss(model, tokens, visit);
  visit_optimizer(model, visit);
}

}  // namespace moetron
