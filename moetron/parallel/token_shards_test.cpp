#include "moetron/parallel/token_shards.h"

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

// body(shards) on every rank, for every number of ranks and tokens.
template <class Body>
void on_all(const Body& body) {
  for (const int size : kRanks) {
    for (const int64_t tokens : kTokens) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens on " << size << " ranks");
      run_ranks(size, [&](Communicator& world) { body(TokenShards{&world, tokens}); });
    }
  }
}

TEST(TokenShards, SlicesAreEqualAndPaddedAtTheEnd) {
  on_all([](const TokenShards& shards) {
    const at::Tensor x = numbers({shards.num_tokens, 3});
    EXPECT_TRUE(at::equal(slice_tokens(x, shards), rows_of(x, shards.rank(), shards.size())));
    const int64_t left = shards.num_tokens - shards.rank() * shards.slice_size();
    EXPECT_EQ(shards.num_local(), std::clamp<int64_t>(left, 0, shards.slice_size()));
    const at::Tensor total = at::full({1}, shards.num_local(), at::kLong);
    shards.group->all_reduce(total).wait();
    EXPECT_EQ(total.item<int64_t>(), shards.num_tokens);
  });
}

TEST(TokenShards, GatherIsTheOppositeOfSlice) {
  on_all([](const TokenShards& shards) {
    const at::Tensor x = numbers({shards.num_tokens, 2, 3});
    EXPECT_TRUE(at::equal(gather_tokens(slice_tokens(x, shards), shards), x));
    const at::Tensor ids = at::arange(shards.num_tokens, at::kLong);
    EXPECT_TRUE(at::equal(gather_tokens(slice_tokens(ids, shards), shards), ids));
  });
}

TEST(TokenShards, ReduceScatterSlicesTheSum) {
  on_all([](const TokenShards& shards) {
    const at::Tensor x = numbers({shards.num_tokens, 3});
    const int64_t all = shards.size() * (shards.size() + 1) / 2;
    EXPECT_TRUE(at::equal(reduce_scatter_tokens(x * (shards.rank() + 1), shards),
                          rows_of(x * all, shards.rank(), shards.size())));
  });
}

TEST(TokenShards, OneRankHoldsAll) {
  const TokenShards shards{nullptr, 5};
  EXPECT_EQ(shards.slice_size(), 5);
  EXPECT_EQ(shards.num_local(), 5);
  const at::Tensor x = numbers({5, 4});
  SegmentRun run(true);
  EXPECT_TRUE(at::equal(slice_tokens(x, shards), x));
  EXPECT_TRUE(at::equal(gather_tokens(x, shards, run), x));
  EXPECT_TRUE(at::equal(reduce_scatter_tokens(x, shards, run), x));
  EXPECT_TRUE(at::equal(gather_features(x, shards, run), x));
}

// A block that tensor-parallel ranks share: gathered tokens times each rank's own weights, and the
// partial results summed. On one rank: x times the sum of the weights.
TEST(TokenShards, GradientsAreThoseOfOneRank) {
  on_all([](const TokenShards& shards) {
    const int64_t tokens = shards.num_tokens, size = shards.size();
    const at::Tensor x = numbers({tokens, 3}), d_z = numbers({tokens, 3}, 5);
    const auto weight = [](int64_t rank) { return numbers({3}, 2 * rank + 1); };
    at::Tensor sum = at::zeros({3});
    for (int64_t rank = 0; rank < size; ++rank) sum.add_(weight(rank));

    SegmentRun run(true);
    const at::Tensor mine = run.input(slice_tokens(x, shards));
    const at::Tensor all = gather_tokens(mine, shards, run);  // [tokens, 3]
    const at::Tensor partial = all * weight(shards.rank());
    const at::Tensor y = reduce_scatter_tokens(partial, shards, run);  // [slice, 3]
    const at::Tensor z = run.output(y.square());
    EXPECT_TRUE(at::equal(z, rows_of((x * sum).square(), shards.rank(), size)));
    at::Tensor d_mine = rows_of(d_z, shards.rank(), size).clone();
    d_mine.slice(0, shards.num_local()).fill_(7);  // gradients of padding count nowhere
    const at::Tensor d_x = run.backward({d_mine}).front();
    const at::Tensor want = 2 * (x * sum) * d_z * sum;
    EXPECT_TRUE(at::equal(d_x, rows_of(want, shards.rank(), size)));
  });
}

TEST(TokenShards, FeaturesAreJoinedAndTheirGradientsSummed) {
  on_all([](const TokenShards& shards) {
    const int64_t tokens = shards.num_tokens, size = shards.size(), rank = shards.rank();
    const at::Tensor x = numbers({tokens, 2 * size});
    const auto d_y = [&](int64_t of) { return numbers({tokens, 2 * size}, of + 3); };
    at::Tensor d_sum = at::zeros_like(x);
    for (int64_t of = 0; of < size; ++of) d_sum.add_(d_y(of));

    SegmentRun run(true);
    const at::Tensor mine = run.input(x.narrow(1, 2 * rank, 2));  // [tokens, features / size]
    const at::Tensor y = run.output(gather_features(mine, shards, run));
    EXPECT_TRUE(at::equal(y, x));
    const at::Tensor d_x = run.backward({d_y(rank)}).front();
    EXPECT_TRUE(at::equal(d_x, d_sum.narrow(1, 2 * rank, 2)));
  });
}

TEST(TokenShards, WithoutGradientsNothingIsRecorded) {
  run_ranks(2, [](Communicator& world) {
    const TokenShards shards{&world, 3};
    SegmentRun run(false);
    const at::Tensor x = numbers({3, 2});
    const at::Tensor all = gather_tokens(slice_tokens(x, shards), shards, run);
    EXPECT_TRUE(at::equal(all, x));
    EXPECT_FALSE(all.requires_grad());
  });
}

}  // namespace
}  // namespace moetron
