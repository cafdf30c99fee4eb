#include "moetron/kernels/router.h"

#include <cmath>

#include "moetron/base/error.h"
#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

struct RouterCase {
  const char* name;
  int64_t tokens, num_experts;
  RouterRule rule;
  bool bias;
  at::ScalarType dtype;
};

std::vector<RouterCase> router_cases() {
  const RouterRule qwen{.top_k = 8, .normalize = true};
  const RouterRule v3{.top_k = 8,
                      .sigmoid = true,
                      .normalize = true,
                      .normalize_eps = 1e-20,
                      .scaling = 2.5,
                      .num_groups = 8,
                      .group_top_k = 4,
                      .group_score_top_two = true};
  RouterRule v3_slice = v3, odd = v3;
  v3_slice.num_groups = v3_slice.group_top_k = 1;
  odd.num_groups = 40;
  odd.group_top_k = 35;
  odd.normalize = false;
  const RouterRule v2{.top_k = 6, .scaling = 16, .num_groups = 8, .group_top_k = 3};
  return {
      {"Qwen3", 4096, 128, qwen, false, at::kBFloat16},
      {"Qwen3 slice", 4096, 16, qwen, false, at::kBFloat16},
      {"DeepSeek-V3", 4096, 256, v3, true, at::kFloat},
      {"DeepSeek-V3 slice", 4096, 16, v3_slice, true, at::kFloat},
      {"DeepSeek-V2", 1001, 160, v2, false, at::kFloat},
      {"many groups", 33, 200, odd, true, at::kFloat},
      {"many experts", 130, 512, qwen, false, at::kFloat},
      {"all of few", 7, 3, {.top_k = 3, .normalize = true}, false, at::kFloat},
      {"more than a warp's lanes", 50, 64, {.top_k = 40, .normalize = true}, true, at::kFloat},
      {"one", 1, 1, {.top_k = 1}, false, at::kBFloat16},
  };
}

// As in moe/router.cpp.
at::Tensor top_indices(const at::Tensor& scores, int64_t k) {
  const at::Tensor order = std::get<1>(
      at::sort(scores, /*stable=*/std::optional<bool>(true), /*dim=*/-1, /*descending=*/true));
  return order.narrow(-1, 0, k);
}

at::Tensor choose(const at::Tensor& scores, const at::Tensor& bias, const RouterRule& rule) {
  at::Tensor ranked = bias.defined() ? scores + bias : scores;
  if (rule.num_groups > rule.group_top_k) {
    const at::Tensor grouped = ranked.unflatten(1, {rule.num_groups, -1});
    const at::Tensor group_scores =
        rule.group_score_top_two ? std::get<0>(grouped.topk(2, -1)).sum(-1) : grouped.amax(-1);
    const at::Tensor dropped =
        at::ones(group_scores.sizes(), group_scores.options().dtype(at::kBool))
            .scatter_(1, top_indices(group_scores, rule.group_top_k), false);
    ranked = grouped.masked_fill(dropped.unsqueeze(-1), -INFINITY).flatten(1);
  }
  return top_indices(ranked, rule.top_k).contiguous();
}

struct Scored {
  at::Tensor logits, scores, weights;  // a graph in fp32
};

Scored score(const at::Tensor& logits, const at::Tensor& chosen, const RouterRule& rule) {
  Scored r;
  r.logits = logits.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  r.logits.requires_grad_();
  r.scores = rule.sigmoid ? r.logits.sigmoid() : r.logits.softmax(-1);
  r.weights = r.scores.gather(1, chosen);
  if (rule.normalize) {
    r.weights = r.weights / (r.weights.sum(-1, /*keepdim=*/true) + rule.normalize_eps);
  }
  r.weights = r.weights * rule.scaling;
  return r;
}

at::Tensor random_logits(const RouterCase& c) {
  return random_bf16({c.tokens, c.num_experts}).to(c.dtype);  // equal ones are frequent
}

at::Tensor random_bias(const RouterCase& c) {
  return c.bias ? at::randn({c.num_experts}, at::kCUDA).mul_(0.1) : at::Tensor();
}

at::Tensor no_counts(const RouterCase& c) {
  return at::zeros({c.num_experts}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
}

TEST(RouterKernels, ChooseAndWeighAsTheFormulas) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(14);
  for (const RouterCase& c : router_cases()) {
    SCOPED_TRACE(c.name);
    const at::Tensor logits = random_logits(c), bias = random_bias(c);
    const at::Tensor counts = no_counts(c).fill_(3);
    const int64_t num_counted = c.tokens - c.tokens / 3;
    poison_gpu_memory();
    ASSERT_TRUE(has_router_kernel(logits));
    const RouterScores found = router_forward(logits, bias, {}, c.rule, counts, num_counted);
    // The choice follows from the kernel's own scores, for theirs differ in the last bit.
    EXPECT_TRUE(at::equal(found.chosen, choose(found.scores, bias, c.rule)));
    const Scored wanted = score(logits, found.chosen, c.rule);
    EXPECT_LE(relative_error(found.scores, wanted.scores.detach()), 1e-6);
    EXPECT_LE(relative_error(found.weights, wanted.weights.detach()), 1e-6);
    const at::Tensor counted = found.chosen.narrow(0, 0, num_counted).reshape(-1);
    EXPECT_TRUE(at::equal(counts, at::bincount(counted, {}, c.num_experts) + 3));
  }
}

TEST(RouterKernels, KeepAnEarlierChoice) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(15);
  for (const RouterCase& c : router_cases()) {
    SCOPED_TRACE(c.name);
    const at::Tensor logits = random_logits(c), counts = no_counts(c);
    const at::Tensor earlier =
        std::get<1>(at::rand({c.tokens, c.num_experts}, at::kCUDA).topk(c.rule.top_k, -1));
    poison_gpu_memory();
    const RouterScores found =
        router_forward(logits, random_bias(c), earlier, c.rule, counts, /*num_counted=*/0);
    EXPECT_TRUE(at::equal(found.chosen, earlier));
    EXPECT_LE(relative_error(found.weights, score(logits, earlier, c.rule).weights.detach()), 1e-6);
    EXPECT_EQ(counts.sum().item<int64_t>(), 0);
  }
}

TEST(RouterKernels, GradientsAreThoseOfTheFormulas) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(16);
  for (const RouterCase& c : router_cases()) {
    SCOPED_TRACE(c.name);
    const at::Tensor logits = random_logits(c);
    const RouterScores forward =
        router_forward(logits, random_bias(c), {}, c.rule, no_counts(c), c.tokens);
    const at::Tensor d_weights = at::randn_like(forward.weights);
    const at::Tensor d_scores = at::randn_like(forward.scores);
    for (const auto& [of_weights, of_scores] :
         {std::pair(true, true), {true, false}, {false, true}}) {
      const Scored wanted = score(logits, forward.chosen, c.rule);
      at::Tensor loss = at::zeros({}, at::kCUDA);
      if (of_weights) loss = loss + (wanted.weights * d_weights).sum();
      if (of_scores) loss = loss + (wanted.scores * d_scores).sum();
      loss.backward();
      poison_gpu_memory();
      const at::Tensor d_logits =
          router_backward(of_weights ? d_weights : at::Tensor(),
                          of_scores ? d_scores : at::Tensor(), forward, c.rule, c.dtype);
      EXPECT_EQ(d_logits.scalar_type(), c.dtype);
      const at::Tensor d0 = wanted.logits.grad();
      const double granted = c.dtype == at::kFloat ? 1e-5 : 4e-3;
      const double error = (d_logits.to(at::kFloat) - d0).norm().item<double>();
      // What is added up, where the sum is zero but for rounding, too.
      const double terms = (of_weights ? c.rule.scaling * d_weights.norm().item<double>() : 0) +
                           (of_scores ? d_scores.norm().item<double>() : 0);
      EXPECT_LE(error, granted * d0.norm().item<double>() + kRounding * terms)
          << of_weights << of_scores;
    }
  }
}

TEST(RouterKernels, OfNoTokensGiveNothing) {
  SKIP_WITHOUT_GPU();
  const RouterRule rule{.top_k = 2};
  const at::Tensor counts = at::zeros({8}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const RouterScores found = router_forward(at::empty({0, 8}, at::kCUDA), {}, {}, rule, counts, 0);
  EXPECT_EQ(found.chosen.sizes(), at::IntArrayRef({0, 2}));
  EXPECT_EQ(router_backward(found.weights, {}, found, rule, at::kFloat).size(0), 0);
}

TEST(RouterKernels, RefuseTensorsOnTheHost) {
  const at::Tensor logits = at::zeros({2, 4});
  EXPECT_FALSE(has_router_kernel(logits));
  EXPECT_THROW(
      router_forward(logits, {}, {}, {.top_k = 1}, at::zeros({4}, at::kLong), /*num_counted=*/2),
      InternalError);
}

}  // namespace
}  // namespace moetron
