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

// (x, w) -> x's first half times w, and its second half as it is: a view.
struct SplitAndScale : JointOperation {
  Parameter* weight = nullptr;
  at::Tensor x;
  at::Tensor d_first;
  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d) override {
    d_first = d[0];
    const at::Tensor zero = at::zeros({x.size(0) / 2});
    return {
        at::cat({d[0].defined() ? d[0] * weight->value() : zero, d[1].defined() ? d[1] : zero})};
  }
  bool has_weights() const override { return d_first.defined(); }
  void add_weight_grads() override {
    weight->grad().add_((d_first * x.narrow(0, 0, x.size(0) / 2)).sum());
  }
};

std::vector<at::Tensor> split_and_scale(const at::Tensor& x, Parameter& weight, SegmentRun& run) {
  auto operation = std::make_shared<SplitAndScale>();
  operation->weight = &weight;
  operation->x = x.detach();
  std::vector<at::Tensor> y;
  {
    const at::NoGradGuard no_grad;
    const int64_t half = x.size(0) / 2;
    y = {operation->x.narrow(0, 0, half) * weight.value(), operation->x.narrow(0, half, half)};
  }
  run.attach({&y[0], &y[1]}, operation, {x});
  return y;
}

TEST(Segment, AnOperationMayHaveSeveralOutputs) {
  for (const bool uses_first : {true, false}) {
    Parameter w("w", {1}, at::kFloat, {});
    w.value().fill_(3);
    SegmentRun run(true);
    const auto y = split_and_scale(run.input(at::arange(4, at::kFloat)), w, run);
    run.output(y[0]);
    run.output(y[1].square());
    const auto d = run.backward({uses_first ? at::ones(2) : at::Tensor(), at::ones(2)});
    const std::vector<float> expected = {uses_first ? 3.0f : 0, uses_first ? 3.0f : 0, 4, 6};
    EXPECT_TRUE(at::equal(d[0], at::tensor(expected)));
    run.weight_grads().run();
    EXPECT_FLOAT_EQ(w.grad().item<float>(), uses_first ? 1 : 0);
  }
}

TEST(Parameter, AClearedGradientIsZeroToReadAndOverwrittenByAWriter) {
  Parameter w("w", {2}, at::kFloat, {});
  EXPECT_FALSE(w.grad_target().adds);
  w.grad_target().sum.fill_(5);
  EXPECT_TRUE(w.grad_target().adds);
  w.clear_grad();
  const Parameter::GradTarget target = w.grad_target();
  EXPECT_FALSE(target.adds);
  target.sum.fill_(7);
  EXPECT_TRUE(at::equal(w.grad(), at::full({2}, 7.0f)));
  w.clear_grad();
  EXPECT_TRUE(at::equal(w.grad(), at::zeros({2})));
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
  EXPECT_THROW(Parameter("short", {2, 9}, at::kFloat, {piece_of_rows("q", {3, 9}, 0, 9)}, {}),
               InternalError);
}

TEST(Parameter, WhatNoPieceCoversStaysZero) {
  Parameter padded("embed", {4, 3}, at::kFloat, {piece_of_rows("embed", {3, 3}, 0, 3)}, {});
  padded.initialize(5, 1);
  EXPECT_GT(padded.value().slice(0, 0, 3).abs().min().item<float>(), 0);
  EXPECT_EQ(padded.value()[3].abs().max().item<float>(), 0);
  EXPECT_EQ(padded.slices(padded.value()).front().view.sizes(), at::IntArrayRef({3, 3}));
}

TEST(Parameter, TheLastShardsAreShortOrEmpty) {
  // Five rows on four ranks: 2, 2, 1, 0.
  const std::vector<int64_t> rows = {2, 2, 1, 0}, begins = {0, 2, 4, 5};
  for (int64_t rank = 0; rank < 4; ++rank) {
    const ParameterPiece piece = piece_of_shard("w", {5, 3}, {0, rank, 4}, 7);
    EXPECT_EQ(piece.global_shape, std::vector<int64_t>({5, 3}));
    EXPECT_EQ(piece.begin, std::vector<int64_t>({begins[rank], 0}));
    EXPECT_EQ(piece.box.sizes, std::vector<int64_t>({rows[rank], 3}));
    EXPECT_EQ(piece.box.offset, 7);
  }
  const ParameterPiece columns = piece_of_shard("w", {5, 6}, {1, 2, 3}, 0);
  EXPECT_EQ(columns.begin, std::vector<int64_t>({0, 4}));
  EXPECT_EQ(columns.box.strides, std::vector<int64_t>({2, 1}));
  Parameter empty("w", {2, 3}, at::kFloat, {piece_of_shard("w", {5, 3}, {0, 3, 4}, 0)}, {});
  EXPECT_TRUE(empty.pieces().empty());
}

TEST(Parameter, AShardDrawsItsPartOfTheWhole) {
  Parameter whole("w", {10, 12}, at::kFloat, {});
  whole.initialize(11, 0.3);
  for (const int64_t dim : {0, 1}) {
    for (int64_t index = 0; index < 4; ++index) {
      const ParameterPiece piece = piece_of_shard("w", {10, 12}, {dim, index, 4}, 0);
      Parameter shard("shard", {3, 12}, at::kFloat, {piece}, {});  // room for either
      shard.initialize(11, 0.3);
      for (const NamedSlice& slice : shard.slices(shard.value())) {
        EXPECT_TRUE(at::equal(slice.view, whole.value()
                                              .narrow(0, slice.begin[0], slice.view.size(0))
                                              .narrow(1, slice.begin[1], slice.view.size(1))))
            << "dim " << dim << ", shard " << index;
      }
    }
  }
}

// The number that stands for an element of a named tensor: its index in the whole.
int64_t number_of(const NamedSlice& slice, int64_t element) {
  int64_t number = 0, place = 0, rest = element;
  for (size_t dim = 0; dim < slice.begin.size(); ++dim) {
    int64_t behind = 1;
    for (size_t i = dim + 1; i < slice.begin.size(); ++i) behind *= slice.view.size(i);
    place = slice.begin[dim] + rest / behind;
    rest %= behind;
    number = number * slice.global_shape[dim] + place;
  }
  return number;
}

TEST(Parameter, AStretchHasTheElementsOfTheWholeStorage) {
  // Padding between and behind pieces, rows of a matrix, a shard by columns, three dimensions.
  Parameter fused(
      "fused", {100}, at::kFloat,
      {piece_of_rows("a", {4, 5}, 0, 5), piece_of_shard("b", {3, 8}, {1, 1, 2}, 23),
       piece_of_shard("c", {6, 3, 4}, {0, 2, 3}, 40), piece_of_shard("v", {9}, {0, 0, 1}, 70)},
      {});
  // Element by element: which element of which tensor lies in each place of the storage.
  std::vector<std::pair<std::string, int64_t>> want(100);
  for (const NamedSlice& slice : fused.slices(fused.value())) {
    for (int64_t i = 0; i < slice.view.numel(); ++i) {
      want[slice.view.storage_offset() + i] = {slice.name, number_of(slice, i)};
    }
  }
  const at::Tensor storage = at::arange(100, at::kFloat);
  for (int64_t begin = 0; begin < 100; ++begin) {
    for (int64_t end = begin; end <= 100; ++end) {
      std::vector<std::pair<std::string, int64_t>> found(100);
      for (const NamedSlice& slice : fused.slices_of_stretch(storage.slice(0, begin, end), begin)) {
        EXPECT_TRUE(slice.view.is_alias_of(storage));
        const at::Tensor flat = slice.view.flatten();
        for (int64_t i = 0; i < flat.numel(); ++i) {
          auto& place = found[static_cast<size_t>(flat[i].item<float>())];
          EXPECT_EQ(place.first, "");  // no element twice
          place = {slice.name, number_of(slice, i)};
        }
      }
      for (int64_t i = 0; i < 100; ++i) {
        const auto expected = i >= begin && i < end ? want[i] : std::pair<std::string, int64_t>();
        ASSERT_EQ(found[i], expected) << "element " << i << " of [" << begin << ", " << end << ")";
      }
    }
  }
}

TEST(Parameter, AStretchWithinRowsGivesThreeBoxes) {
  Parameter w("w", {4, 5}, at::kFloat, {});
  const auto slices = w.slices_of_stretch(at::arange(3, 17, at::kFloat), 3, "exp_avg.");
  ASSERT_EQ(slices.size(), 3u);
  EXPECT_EQ(slices[0].name, "exp_avg.w");
  EXPECT_EQ(slices[0].view.sizes(), at::IntArrayRef({1, 2}));
  EXPECT_EQ(slices[1].begin, std::vector<int64_t>({1, 0}));
  EXPECT_EQ(slices[1].view.sizes(), at::IntArrayRef({2, 5}));
  EXPECT_EQ(slices[2].view.sizes(), at::IntArrayRef({1, 2}));
}

TEST(Parameter, MovesItsValueIntoABuffer) {
  Parameter owner("embed", {4, 2}, at::kBFloat16, {});
  Parameter tied("head", {4, 2}, at::kBFloat16, {});
  owner.initialize(1, 1);
  tied.tie_to(owner);
  const at::Tensor before = owner.value().clone();
  at::Tensor flat = at::zeros({20}, at::kBFloat16);
  owner.set_value_storage(flat.narrow(0, 5, 8).view({4, 2}));
  EXPECT_TRUE(at::equal(owner.value(), before));
  EXPECT_TRUE(at::equal(flat.narrow(0, 5, 8).view({4, 2}), before));
  flat.fill_(3);
  EXPECT_TRUE(at::equal(tied.value(), at::full({4, 2}, 3, at::kBFloat16)));
  EXPECT_THROW(owner.set_value_storage(at::zeros({4, 2}, at::kFloat)), InternalError);
  EXPECT_THROW(owner.set_value_storage(at::zeros({8}, at::kBFloat16)), InternalError);
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

TEST(Parameter, OnlyTrainedOnesAndCopiesHaveGradients) {
  Parameter trained("trained", {2}, at::kFloat, {});
  Parameter buffer("buffer", {2}, at::kFloat, {.role = Role::kBuffer});
  Parameter copy("copy", {2}, at::kFloat, {});
  copy.become_copy();
  EXPECT_TRUE(trained.needs_grad());
  EXPECT_TRUE(copy.needs_grad());
  EXPECT_FALSE(buffer.needs_grad());
  EXPECT_THROW(buffer.grad(), InternalError);
  EXPECT_THROW(buffer.grad_target(), InternalError);
  Parameter owner("owner", {2}, at::kFloat, {}), use("use", {2}, at::kFloat, {});
  use.tie_to(owner);
  EXPECT_THROW(use.freeze(), InternalError);
  owner.freeze();
  EXPECT_FALSE(use.needs_grad());
  EXPECT_THROW(use.grad(), InternalError);
  trained.grad();
  EXPECT_THROW(trained.freeze(), InternalError);
}

TEST(Parameter, KeepsWhatIsDerivedUntilTheValueChanges) {
  Parameter weight("weight", {2}, at::kFloat, {});
  int num_made = 0;
  const auto twice = [&] {
    return weight
        .derived(Derived::kTwiceByRows,
                 [&](const at::Tensor& value) {
                   ++num_made;
                   return std::vector{at::cat({value, value})};
                 })
        .front();
  };
  EXPECT_TRUE(at::equal(twice(), at::zeros({4})));
  twice();
  EXPECT_EQ(num_made, 1);
  weight.value().view({2, 1}).add_(1);  // by a view, too
  EXPECT_TRUE(at::equal(twice(), at::ones({4})));
  weight.value().data_ptr<float>()[0] = 5;
  weight.value_changed();
  EXPECT_EQ(twice()[2].item<float>(), 5);
  weight.set_value_storage(at::full({2}, 7.0f));
  EXPECT_EQ(twice()[0].item<float>(), 5);  // the value moved, and stayed what it was
  EXPECT_EQ(num_made, 4);
}

}  // namespace
}  // namespace moetron
