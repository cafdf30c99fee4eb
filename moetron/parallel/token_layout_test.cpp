#include "moetron/parallel/token_layout.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/segment.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

const std::vector<int> kRanks = {2, 3, 4};
const std::vector<int64_t> kTokens = {1, 2, 5, 8, 13};  // fewer than ranks, no multiples, multiples

// The same on every rank, and sums of it are exact.
at::Tensor numbers(at::IntArrayRef sizes, int64_t first = 1) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return at::arange(first, first + count, at::kFloat).remainder(17).view(sizes);
}

// Rank r's rows of x [tokens, ...], zeros beyond the last: what a slice must be.
at::Tensor rows_of(const at::Tensor& x, int64_t rank, int64_t size) {
  const int64_t slice = (x.size(0) + size - 1) / size;
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[0] = slice * size;
  const at::Tensor padded = at::zeros(sizes);
  padded.slice(0, 0, x.size(0)).copy_(x);
  return padded.narrow(0, rank * slice, slice);
}

// body(layout) on every rank, for every number of ranks and tokens.
template <class Body>
void on_all(const Body& body) {
  for (const int size : kRanks) {
    for (const int64_t tokens : kTokens) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens on " << size << " ranks");
      run_ranks(size, [&](Communicator& world) { body(TokenLayout{&world, tokens}); });
    }
  }
}

TEST(TokenLayout, SlicesAreEqualAndPaddedAtTheEnd) {
  on_all([](const TokenLayout& layout) {
    const at::Tensor x = numbers({layout.num_tokens, 3});
    EXPECT_TRUE(at::equal(slice_tokens(x, layout), rows_of(x, layout.rank(), layout.size())));
    const int64_t left = layout.num_tokens - layout.rank() * layout.slice_size();
    EXPECT_EQ(layout.num_local(), std::clamp<int64_t>(left, 0, layout.slice_size()));
    const at::Tensor total = at::full({1}, layout.num_local(), at::kLong);
    layout.group->all_reduce(total).wait();
    EXPECT_EQ(total.item<int64_t>(), layout.num_tokens);
  });
}

TEST(TokenLayout, GatherIsTheOppositeOfSlice) {
  on_all([](const TokenLayout& layout) {
    const at::Tensor x = numbers({layout.num_tokens, 2, 3});
    EXPECT_TRUE(at::equal(gather_tokens(slice_tokens(x, layout), layout), x));
    const at::Tensor ids = at::arange(layout.num_tokens, at::kLong);
    EXPECT_TRUE(at::equal(gather_tokens(slice_tokens(ids, layout), layout), ids));
  });
}

TEST(TokenLayout, ReduceScatterSlicesTheSum) {
  on_all([](const TokenLayout& layout) {
    const at::Tensor x = numbers({layout.num_tokens, 3});
    const int64_t all = layout.size() * (layout.size() + 1) / 2;
    EXPECT_TRUE(at::equal(reduce_scatter_tokens(x * (layout.rank() + 1), layout),
                          rows_of(x * all, layout.rank(), layout.size())));
  });
}

TEST(TokenLayout, OneRankHoldsAll) {
  const TokenLayout layout{nullptr, 5};
  EXPECT_EQ(layout.slice_size(), 5);
  EXPECT_EQ(layout.num_local(), 5);
  const at::Tensor x = numbers({5, 4});
  SegmentRun run(true);
  EXPECT_TRUE(at::equal(slice_tokens(x, layout), x));
  EXPECT_TRUE(at::equal(gather_tokens(x, layout, run), x));
  EXPECT_TRUE(at::equal(reduce_scatter_tokens(x, layout, run), x));
  EXPECT_TRUE(at::equal(gather_features(x, layout, run), x));
}

// A block that tensor-parallel ranks share: gathered tokens times each rank's own weights, and the
// partial results summed. On one rank: x times the sum of the weights.
TEST(TokenLayout, GradientsAreThoseOfOneRank) {
  on_all([](const TokenLayout& layout) {
    const int64_t tokens = layout.num_tokens, size = layout.size();
    const at::Tensor x = numbers({tokens, 3}), d_z = numbers({tokens, 3}, 5);
    const auto weight = [](int64_t rank) { return numbers({3}, 2 * rank + 1); };
    at::Tensor sum = at::zeros({3});
    for (int64_t rank = 0; rank < size; ++rank) sum.add_(weight(rank));

    SegmentRun run(true);
    const at::Tensor mine = run.input(slice_tokens(x, layout));
    const at::Tensor all = gather_tokens(mine, layout, run);  // [tokens, 3]
    const at::Tensor partial = all * weight(layout.rank());
    const at::Tensor y = reduce_scatter_tokens(partial, layout, run);  // [slice, 3]
    const at::Tensor z = run.output(y.square());
    EXPECT_TRUE(at::equal(z, rows_of((x * sum).square(), layout.rank(), size)));
    at::Tensor d_mine = rows_of(d_z, layout.rank(), size).clone();
    d_mine.slice(0, layout.num_local()).fill_(7);  // gradients of padding count nowhere
    const at::Tensor d_x = run.backward({d_mine}).front();
    const at::Tensor want = 2 * (x * sum) * d_z * sum;
    EXPECT_TRUE(at::equal(d_x, rows_of(want, layout.rank(), size)));
  });
}

TEST(TokenLayout, FeaturesAreJoinedAndTheirGradientsSummed) {
  on_all([](const TokenLayout& layout) {
    const int64_t tokens = layout.num_tokens, size = layout.size(), rank = layout.rank();
    const at::Tensor x = numbers({tokens, 2 * size});
    const auto d_y = [&](int64_t of) { return numbers({tokens, 2 * size}, of + 3); };
    at::Tensor d_sum = at::zeros_like(x);
    for (int64_t of = 0; of < size; ++of) d_sum.add_(d_y(of));

    SegmentRun run(true);
    const at::Tensor mine = run.input(x.narrow(1, 2 * rank, 2));  // [tokens, features / size]
    const at::Tensor y = run.output(gather_features(mine, layout, run));
    EXPECT_TRUE(at::equal(y, x));
    const at::Tensor d_x = run.backward({d_y(rank)}).front();
    EXPECT_TRUE(at::equal(d_x, d_sum.narrow(1, 2 * rank, 2)));
  });
}

TEST(TokenLayout, WithoutGradientsNothingIsRecorded) {
  run_ranks(2, [](Communicator& world) {
    const TokenLayout layout{&world, 3};
    SegmentRun run(false);
    const at::Tensor x = numbers({3, 2});
    const at::Tensor all = gather_tokens(slice_tokens(x, layout), layout, run);
    EXPECT_TRUE(at::equal(all, x));
    EXPECT_FALSE(all.requires_grad());
  });
}

}  // namespace
}  // namespace moetron
