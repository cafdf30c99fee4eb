// Every collective on rank threads against the same thing computed from all inputs at once.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

struct Case {
  int size;
  at::ScalarType type;
};

// What rank `rank` contributes: anyone can compute it. Small integers and halves for integer types;
// for floats numbers whose sums round differently in another order.
at::Tensor contribution(int rank, std::vector<int64_t> shape, at::ScalarType type) {
  int64_t count = 1;
  for (int64_t extent : shape) count *= extent;
  const at::Tensor index = at::arange(count, at::kLong);
  const at::Tensor scrambled = (index * 7919 + rank * 104729 + 17).remainder(10007);
  if (!at::isFloatingType(type)) return scrambled.remainder(251).to(type).view(shape);
  const at::Tensor scale = at::pow(10.0, (index + rank).remainder(5).to(at::kFloat) - 2);
  return ((scrambled.to(at::kFloat) / 5003 - 1) * scale).to(type).view(shape);
}

// The reference: one addition after the other, in rank order, in fp32 for floats.
at::Tensor ordered_reduction(const std::vector<at::Tensor>& inputs, ReduceOp op) {
  const at::ScalarType type = inputs[0].scalar_type();
  const bool narrow = type == at::kBFloat16 || type == at::kHalf;
  at::Tensor result = narrow ? inputs[0].to(at::kFloat) : inputs[0].clone();
  for (size_t r = 1; r < inputs.size(); ++r) {
    const at::Tensor next = inputs[r].to(result.scalar_type());
    if (op == ReduceOp::kSum) result = result + next;
    if (op == ReduceOp::kMax) result = at::maximum(result, next);
    if (op == ReduceOp::kMin) result = at::minimum(result, next);
  }
  return result.to(type);
}

std::vector<at::Tensor> contributions(int size, std::vector<int64_t> shape, at::ScalarType type) {
  std::vector<at::Tensor> all;
  for (int r = 0; r < size; ++r) all.push_back(contribution(r, shape, type));
  return all;
}

class CollectivesTest : public ::testing::TestWithParam<Case> {};

TEST_P(CollectivesTest, AllReduceIsTheOrderedReduction) {
  const auto [size, type] = GetParam();
  for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
    for (int64_t count : {0, 1, 3, 2047, 10000}) {
      const at::Tensor expected = ordered_reduction(contributions(size, {count}, type), op);
      run_ranks(size, [&, type = type](Communicator& world) {
        const at::Tensor tensor = contribution(world.rank(), {count}, type);
        world.all_reduce(tensor, op).wait();
        EXPECT_TRUE(at::equal(tensor, expected)) << count;
      });
    }
  }
}

TEST_P(CollectivesTest, AllGatherAndReduceScatter) {
  const auto [size, type] = GetParam();
  const std::vector<at::Tensor> small = contributions(size, {5, 3}, type);
  const std::vector<at::Tensor> big = contributions(size, {size * 5, 3}, type);
  const at::Tensor gathered = at::cat(small);
  const at::Tensor reduced = ordered_reduction(big, ReduceOp::kSum);
  run_ranks(size, [&, n = size, t = type](Communicator& world) {
    const int rank = world.rank();
    const at::Tensor all = at::empty({n * 5, 3}, t);
    world.all_gather(all, small[rank]).wait();
    EXPECT_TRUE(at::equal(all, gathered));

    const at::Tensor piece = at::empty({5, 3}, t);
    world.reduce_scatter(piece, big[rank]).wait();
    EXPECT_TRUE(at::equal(piece, reduced.narrow(0, rank * 5, 5)));

    // In place: the input is this rank's piece of the output, and the other way round.
    const at::Tensor own = all.zero_().narrow(0, rank * 5, 5).copy_(small[rank]);
    world.all_gather(all, own).wait();
    EXPECT_TRUE(at::equal(all, gathered));
    const at::Tensor whole = big[rank].clone();
    const at::Tensor result = whole.narrow(0, rank * 5, 5);
    world.reduce_scatter(result, whole).wait();
    EXPECT_TRUE(at::equal(result, reduced.narrow(0, rank * 5, 5)));
  });
}

// Rank a sends (3a + 5b) % 4 rows to b: uneven, with zeros.
int64_t rows_between(int from, int to) {
  return (3 * from + 5 * to) % 4;
}

TEST_P(CollectivesTest, AllToAllMovesUnevenRows) {
  const auto [size, type] = GetParam();
  run_ranks(size, [n = size, t = type](Communicator& world) {
    std::vector<int64_t> sent;
    std::vector<int64_t> received;
    std::vector<at::Tensor> expected = {at::empty({0, 2}, t)};
    const auto rows = [&](int from, int to) {
      return contribution(from * 16 + to, {rows_between(from, to), 2}, t);
    };
    std::vector<at::Tensor> mine;
    for (int r = 0; r < n; ++r) {
      sent.push_back(rows_between(world.rank(), r));
      received.push_back(rows_between(r, world.rank()));
      mine.push_back(rows(world.rank(), r));
      expected.push_back(rows(r, world.rank()));
    }
    const at::Tensor wanted = at::cat(expected);
    const at::Tensor output = at::empty_like(wanted);
    world.all_to_all_v(output, at::cat(mine), received, sent).wait();
    EXPECT_TRUE(at::equal(output, wanted));

    const std::vector<int64_t> none(n, 0);  // nobody sends anything
    world.all_to_all_v(at::empty({0, 2}, t), at::empty({0, 2}, t), none, none).wait();
  });
}

TEST_P(CollectivesTest, BroadcastFromEveryRoot) {
  const auto [size, type] = GetParam();
  run_ranks(size, [n = size, t = type](Communicator& world) {
    for (int root = 0; root < n; ++root) {
      const at::Tensor tensor = contribution(world.rank(), {4, 7}, t);
      world.broadcast(tensor, root).wait();
      EXPECT_TRUE(at::equal(tensor, contribution(root, {4, 7}, t)));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    SizesAndTypes, CollectivesTest, ::testing::ValuesIn([] {
      std::vector<Case> cases;
      for (int size : {1, 2, 3, 4, 8}) {
        for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kLong, at::kByte}) {
          cases.push_back({size, type});
        }
      }
      return cases;
    }()),
    [](const auto& test) {
      return concat("Size", test.param.size, "_", c10::toString(test.param.type));
    });

TEST(CommTest, ReductionsKeepFp64AndNan) {
  run_ranks(2, [](Communicator& world) {
    const at::Tensor wide = at::full({3}, world.rank() == 0 ? 1.0 : 1e-12, at::kDouble);
    world.all_reduce(wide).wait();
    EXPECT_EQ(wide[2].item<double>(), 1.0 + 1e-12);
    const at::Tensor sick = at::zeros({2});
    if (world.rank() == 0) sick[0] = NAN;
    if (world.rank() == 1) sick[1] = NAN;
    world.all_reduce(sick, ReduceOp::kMax).wait();
    EXPECT_TRUE(sick.isnan().all().item<bool>());
  });
}

TEST(CommTest, WorksMayBeWaitedForInAnyOrderAndOwnTheirTensors) {
  run_ranks(3, [](Communicator& world) {
    const at::Tensor kept = at::full({1000}, 1.0f);
    std::vector<at::Tensor> outputs;
    std::vector<Work> works;
    for (int i = 0; i < 8; ++i) {
      outputs.push_back(at::empty({3000}));
      // The input's only other handle is the Work's.
      works.push_back(world.all_gather(outputs.back(), at::full({1000}, 10.0f * i + world.rank())));
    }
    Work reduction = world.all_reduce(kept);
    reduction.wait();
    EXPECT_EQ(kept[7].item<float>(), 3);
    // Each rank in an order of its own.
    for (int i = 0; i < 8; ++i) {
      const int which = (world.rank() == 0) ? i : (world.rank() == 1) ? 7 - i : (i * 3) % 8;
      works[which].wait();
      works[which].wait();  // a second time is free
      EXPECT_EQ(outputs[which][2500].item<float>(), 10.0f * which + 2);
      EXPECT_EQ(outputs[which][0].item<float>(), 10.0f * which);
    }
    world.all_reduce(at::ones({5}));  // dropped unwaited
  });
}

TEST(CommTest, MessagesMatchByTagAndKeepTheirOrder) {
  run_ranks(3, [](Communicator& world) {
    const int next = (world.rank() + 1) % 3;
    const int previous = (world.rank() + 2) % 3;
    std::vector<Work> works;
    std::vector<at::Tensor> received;
    world.group_begin();
    for (int i = 0; i < 6; ++i) {
      works.push_back(world.send(at::full({3}, 100 * world.rank() + i, at::kLong), next, i % 3));
    }
    // Tags in another order than sent; of each tag two messages, first sent first.
    for (int tag : {2, 0, 1, 1, 2, 0}) {
      received.push_back(at::empty({3}, at::kLong));
      works.push_back(world.recv(received.back(), previous, tag));
    }
    world.group_end();
    for (Work& work : works) work.wait();
    const std::vector<int64_t> expected = {2, 0, 1, 4, 5, 3};
    for (int i = 0; i < 6; ++i) {
      EXPECT_EQ(received[i][1].item<int64_t>(), 100 * previous + expected[i]);
    }
  });
}

TEST(CommTest, SplitMakesIndependentGroups) {
  run_ranks(8, [](Communicator& world) {
    const int rank = world.rank();
    // Rows {0..3} {4..7}; columns in reverse order; the odd ones only.
    auto row = world.split(rank / 4, rank, "row");
    auto column = world.split(rank % 4, -rank, "column");
    auto odd = world.split(rank % 2 == 1 ? 7 : -1, 0, "odd");
    EXPECT_EQ(row->name(), "row");
    EXPECT_EQ(row->rank(), rank % 4);
    EXPECT_EQ(column->members(), (std::vector<int>{rank % 4 + 4, rank % 4}));
    EXPECT_EQ(column->rank(), rank < 4 ? 1 : 0);
    EXPECT_EQ(odd == nullptr, rank % 2 == 0);
    EXPECT_EQ(row->world_rank(), rank);

    // All at once, waited for in another order.
    const at::Tensor in_row = at::full({2}, rank, at::kLong);
    const at::Tensor in_column = in_row.clone();
    const at::Tensor in_world = in_row.clone();
    Work a = world.all_reduce(in_world);
    Work b = row->all_reduce(in_row);
    Work c = column->all_reduce(in_column);
    if (odd) {
      const at::Tensor all = at::empty({4}, at::kLong);
      odd->all_gather(all, at::full({1}, rank, at::kLong)).wait();
      EXPECT_TRUE(at::equal(all, at::arange(4) * 2 + 1));
    }
    c.wait();
    b.wait();
    a.wait();
    EXPECT_EQ(in_world[0].item<int64_t>(), 28);
    EXPECT_EQ(in_row[0].item<int64_t>(), rank < 4 ? 6 : 22);
    EXPECT_EQ(in_column[0].item<int64_t>(), 2 * (rank % 4) + 4);

    // A group of a group, and a second one with the same members.
    for (int i = 0; i < 2; ++i) {
      auto pair = row->subgroup({rank % 4 / 2 * 2, rank % 4 / 2 * 2 + 1}, "pair");
      const at::Tensor sum = at::full({1}, rank + i, at::kLong);
      pair->all_reduce(sum).wait();
      EXPECT_EQ(sum.item<int64_t>(), rank / 2 * 4 + 1 + 2 * i);
    }
  });
}

TEST(CommTest, BarrierHoldsUntilAllHaveEntered) {
  std::atomic<int> entered = 0;
  run_ranks(4, [&](Communicator& world) {
    for (int round = 1; round <= 20; ++round) {
      ++entered;
      world.barrier();
      EXPECT_GE(entered.load(), 4 * round);
      world.barrier();
    }
  });
}

TEST(CommTest, RankThreadsComputeOnOneThread) {
  const int before = at::get_num_threads();
  const at::Tensor a = contribution(0, {300, 400}, at::kFloat);
  const at::Tensor b = contribution(1, {400, 200}, at::kFloat);
  at::set_num_threads(2);
  at::Tensor inside;
  run_ranks(3, [&](Communicator& world) {
    EXPECT_EQ(at::get_num_threads(), 1);
    const at::Tensor product = at::mm(a, b);
    if (world.rank() == 1) inside = product;
  });
  EXPECT_EQ(at::get_num_threads(), 2);
  at::set_num_threads(1);  // the caller's number of threads does not reach the ranks
  EXPECT_TRUE(at::equal(inside, at::mm(a, b)));
  at::set_num_threads(before);
}

TEST(CommTest, WrongArgumentsAreOurFault) {
  run_ranks(2, [](Communicator& world) {
    const at::Tensor t = at::zeros({4, 4});
    EXPECT_THROW(world.all_reduce(t.t()[0]), InternalError);
    EXPECT_THROW(world.all_gather(t, t), InternalError);
    EXPECT_THROW(world.reduce_scatter(t, t), InternalError);
    EXPECT_THROW(world.broadcast(t, 2), InternalError);
    EXPECT_THROW(world.send(t, world.rank()), InternalError);
    const std::vector<int64_t> counts = {1, 2};
    EXPECT_THROW(world.all_to_all_v(t, t, counts, counts), InternalError);
    EXPECT_THROW(world.group_end(), InternalError);
    world.group_begin();
    Work work = world.all_reduce(t);
    EXPECT_THROW(work.wait(), InternalError);
    world.group_end();
    work.wait();
  });
}

}  // namespace
}  // namespace moetron
