#include "moetron/parallel/token_layout.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/parallel/zig_zag_test.h"

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

// body(layout, which token each row is; -1: none) on every rank.
template <class Body>
void on_zig_zags(const Body& body) {
  for (const int size : {2, 4}) {
    for (const int64_t tokens : {1, 5, 8, 13, 16, 22}) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens on " << size << " ranks");
      run_ranks(size, [&](Communicator& world) {
        const auto of_ranks = zig_zag(size, tokens);
        const TokenLayout layout(&world, of_ranks, at::kCPU);
        std::vector<int64_t> token_of_row;
        for (const auto& [begin, count] : of_ranks[static_cast<size_t>(world.rank())]) {
          for (int64_t token = begin; token < begin + count; ++token) token_of_row.push_back(token);
        }
        token_of_row.resize(static_cast<size_t>(layout.slice_size()), -1);
        body(layout, token_of_row);
      });
    }
  }
}

// A rank's rows of x, zeros in those that are no token.
at::Tensor rows_of(const at::Tensor& x, const std::vector<int64_t>& token_of_row) {
  std::vector<at::Tensor> rows;
  for (const int64_t token : token_of_row) {
    rows.push_back(token < 0 ? at::zeros_like(x[0]) : x[token]);
  }
  return at::stack(rows);
}

TEST(TokenLayout, ZigZagSlicesComeBackInTheOrderOfTheTokens) {
  on_zig_zags([](const TokenLayout& layout, const std::vector<int64_t>& token_of_row) {
    const at::Tensor x = numbers({layout.num_tokens, 3});
    const at::Tensor mine = slice_tokens(x, layout);
    EXPECT_TRUE(at::equal(mine, rows_of(x, token_of_row)));
    EXPECT_TRUE(at::equal(gather_tokens(mine, layout), x));
    EXPECT_TRUE(at::equal(layout.token_of_row(at::kCPU),
                          at::tensor(token_of_row, at::kLong).narrow(0, 0, layout.num_local())));
    const int64_t all = layout.size() * (layout.size() + 1) / 2;
    EXPECT_TRUE(at::equal(reduce_scatter_tokens(x * (layout.rank() + 1), layout),
                          rows_of(x * all, token_of_row)));
  });
}

TEST(TokenLayout, GradientsOfZigZagSlicesAreThoseOfOneRank) {
  on_zig_zags([](const TokenLayout& layout, const std::vector<int64_t>& token_of_row) {
    const int64_t tokens = layout.num_tokens, size = layout.size(), rank = layout.rank();
    const at::Tensor x = numbers({tokens, 3}), d_z = numbers({tokens, 3}, 5);
    const auto weight = [](int64_t of) { return numbers({3}, 2 * of + 1); };
    at::Tensor sum = at::zeros({3});
    for (int64_t of = 0; of < size; ++of) sum.add_(weight(of));

    SegmentRun run(true);
    const at::Tensor mine = run.input(slice_tokens(x, layout));
    const at::Tensor features = gather_tokens(mine, layout, run).narrow(1, 0, 1);
    const at::Tensor all = gather_features(features * (rank + 1), layout, run);  // [tokens, size]
    const at::Tensor partial = gather_tokens(mine, layout, run) * weight(rank) + all.sum(1, true);
    const at::Tensor z = run.output(reduce_scatter_tokens(partial, layout, run).square());
    const int64_t shares = size * (size + 1) / 2;
    const at::Tensor whole = x * sum + size * shares * x.narrow(1, 0, 1);
    EXPECT_TRUE(at::equal(z, rows_of(whole.square(), token_of_row)));
    at::Tensor d_mine = rows_of(d_z, token_of_row);
    d_mine.slice(0, layout.num_local()).fill_(7);  // gradients of padding count nowhere
    const at::Tensor d_whole = 2 * whole * d_z;
    at::Tensor want = d_whole * sum;
    want.narrow(1, 0, 1).add_(d_whole.sum(1, /*keepdim=*/true), size * shares);
    EXPECT_TRUE(at::equal(run.backward({d_mine}).front(), rows_of(want, token_of_row)));
  });
}

TEST(TokenLayout, StretchesInTheOrderOfTheRanksNeedNoCopy) {
  run_ranks(2, [](Communicator& world) {
    const TokenLayout usual(&world, 5), given(&world, {{{0, 2}, {2, 1}}, {{3, 2}}}, at::kCPU);
    EXPECT_FALSE(given.row_of_token.defined());
    EXPECT_EQ(given.slice_size(), usual.slice_size());
    const at::Tensor x = numbers({5, 2});
    EXPECT_TRUE(at::equal(slice_tokens(x, given), slice_tokens(x, usual)));
    EXPECT_TRUE(at::equal(gather_tokens(slice_tokens(x, given), given), x));
  });
}

TEST(TokenLayout, StretchesThatMissOrShareATokenAreRefused) {
  run_ranks(2, [](Communicator& world) {
    const auto make = [&](std::vector<std::vector<TokenStretch>> of_ranks) {
      return TokenLayout(&world, std::move(of_ranks), at::kCPU);
    };
    EXPECT_NO_THROW(make({{{3, 2}}, {{0, 3}}}));
    EXPECT_THROW(make({{{0, 2}}, {{1, 2}}}), InternalError);
    EXPECT_THROW(make({{{0, 2}}, {{3, 2}}}), InternalError);
    EXPECT_THROW(make({{{0, 2}}}), InternalError);
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
