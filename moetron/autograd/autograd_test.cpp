#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

// y = x * w, a stand-in for operations with parameters.
struct Scale : Operation {
  Parameter* weight = nullptr;
  at::Tensor x;
  std::vector<at::Tensor> backward_input(const at::Tensor& dy) override {
    return {dy * weight->value()};
  }
  void backward_weight(const at::Tensor& dy) override { weight->grad().add_((dy * x).sum()); }
};

at::Tensor scale(const at::Tensor& x, Parameter& weight, SegmentRun& run) {
  auto operation = std::make_shared<Scale>();
  operation->weight = &weight;
  operation->x = x.detach();
  at::Tensor y = operation->x * weight.value();
  run.attach(y, operation, {x});
  return y;
}

TEST(Segment, BackwardGivesInputGradientsAndDefersWeightGradients) {
  Parameter w("w", {1}, at::kFloat, {});
  w.value().fill_(3);
  SegmentRun run(true);
  const at::Tensor x = run.input(at::arange(4, at::kFloat));
  const at::Tensor y = run.output(scale(x, w, run).square());
  const at::Tensor z = run.output(x * 2);
  EXPECT_FALSE(y.requires_grad());
  const auto d = run.backward({at::ones(4), at::Tensor()});
  ASSERT_EQ(d.size(), 1u);
  EXPECT_TRUE(at::allclose(d[0], 18 * at::arange(4, at::kFloat)));
  EXPECT_FALSE(w.has_grad());
  run.weight_grads().run();
  EXPECT_FLOAT_EQ(w.grad().item<float>(), 2 * 3 * (0 + 1 + 4 + 9));
  EXPECT_TRUE(run.weight_grads().empty());
}

TEST(Segment, AnOperationWithoutDifferentiableInputIsStillReached) {
  Parameter w("w", {1}, at::kFloat, {});
  SegmentRun run(true);
  run.output(scale(at::ones(3), w, run));
  EXPECT_TRUE(run.backward({at::full(3, 2.0)}).empty());
  run.weight_grads().run();
  EXPECT_FLOAT_EQ(w.grad().item<float>(), 6);
}

TEST(Segment, WithoutGradientsNothingIsRecorded) {
  Parameter w("w", {1}, at::kFloat, {});
  SegmentRun run(false);
  const at::Tensor x = at::ones(3);
  EXPECT_FALSE(run.output(scale(run.input(x), w, run)).requires_grad());
  EXPECT_THROW(run.backward({x}), InternalError);
}

TEST(Parameter, PiecesAreViewsOfOneStorage) {
  const int64_t heads = 3, kv = 2, hidden = 5;
  Parameter qkv("qkv", {heads + kv, hidden}, at::kFloat,
                {piece_of_rows("q", {heads, hidden}, 0, hidden),
                 piece_of_rows("k", {kv, hidden}, heads, hidden)},
                {});
  qkv.initialize(7, 0.5);
  Parameter q("q", {heads, hidden}, at::kFloat, {});
  q.initialize(7, 0.5);
  const auto slices = qkv.slices(qkv.value(), "exp_avg.");
  EXPECT_EQ(slices[1].name, "exp_avg.k");
  EXPECT_TRUE(at::equal(slices[0].view, q.value()));  // fusing does not change the draw
  EXPECT_TRUE(at::equal(slices[1].view, qkv.value().slice(0, heads)));
  EXPECT_THROW(Parameter("short", {9, 9}, at::kFloat, {piece_of_rows("q", {3, 9}, 0, 9)}, {}),
               InternalError);
}

TEST(Parameter, ATiedUseFoldsItsGradientOnce) {
  Parameter embedding("embed", {4, 2}, at::kFloat, {});
  Parameter head("head", {4, 2}, at::kFloat, {});
  embedding.initialize(1, 1);
  head.tie_to(embedding);
  EXPECT_EQ(head.value().data_ptr(), embedding.value().data_ptr());
  EXPECT_TRUE(head.slices(head.value()).empty());
  embedding.grad().fill_(1);
  head.grad().fill_(2);
  head.fold_tied_grad();
  head.fold_tied_grad();
  EXPECT_FLOAT_EQ(embedding.grad().sum().item<float>(), 24);
}

}  // namespace
}  // namespace moetron
