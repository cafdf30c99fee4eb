#include "moetron/parallel/mesh.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

std::vector<int> group(const ParallelSizes& sizes, int64_t rank,
                       const std::vector<MeshAxis>& axes) {
  const std::vector<int64_t> ranks = group_of(sizes, rank, axes);
  return {ranks.begin(), ranks.end()};
}

// Every member finds the others, in their order.
void expect_meets(Communicator& communicator) {
  const at::Tensor all = at::empty({communicator.size()}, at::kInt);
  communicator.all_gather(all, at::full({1}, communicator.world_rank(), at::kInt)).wait();
  const int* ranks = all.const_data_ptr<int>();
  EXPECT_EQ(std::vector<int>(ranks, ranks + communicator.size()), communicator.members());
}

TEST(Mesh, EveryGroupHasTheRanksOfTheLayout) {
  struct Layout {
    int64_t tp, pp, ep, tpe;
  };
  for (const auto& [tp, pp, ep, tpe] : std::vector<Layout>{{1, 1, 1, 1},
                                                           {8, 1, 8, 1},
                                                           {2, 1, 4, 1},
                                                           {2, 1, 2, 2},
                                                           {4, 1, 2, 1},
                                                           {1, 1, 1, 4},
                                                           {2, 2, 2, 1},
                                                           {1, 4, 2, 1}}) {
    const ParallelSizes sizes = parallel_sizes(8, tp, pp, ep, tpe);
    run_ranks(8, [&](Communicator& world) {
      Mesh mesh(world, sizes);
      const int rank = world.rank();
      const std::vector<int> stage = group(sizes, rank, {MeshAxis::kTp, MeshAxis::kDp});
      const std::vector<int> data = group(sizes, rank, {MeshAxis::kDp});
      EXPECT_EQ(mesh.tensor().members(), group(sizes, rank, {MeshAxis::kTp}));
      EXPECT_EQ(mesh.data().members(), data);
      EXPECT_EQ(mesh.stage().members(), stage);
      EXPECT_EQ(mesh.expert().members(), group(sizes, rank, {MeshAxis::kTpe, MeshAxis::kEp}));
      EXPECT_EQ(mesh.replicas(kWholeOnEveryRank).members(), stage);
      EXPECT_EQ(mesh.replicas(kTensorDivided).members(), data);
      EXPECT_EQ(mesh.replicas(kExpertDivided).members(), group(sizes, rank, {MeshAxis::kEdp}));
      for (Communicator* each : {&mesh.world(), &mesh.tensor(), &mesh.data(), &mesh.stage(),
                                 &mesh.expert(), &mesh.replicas(kExpertDivided)}) {
        expect_meets(*each);
      }
      for (const MeshAxis axis : {MeshAxis::kTp, MeshAxis::kDp, MeshAxis::kPp, MeshAxis::kTpe,
                                  MeshAxis::kEp, MeshAxis::kEdp}) {
        EXPECT_EQ(mesh.coordinate(axis), coordinate(sizes, rank, axis));
      }
    });
  }
}

TEST(Mesh, RanksThatHoldTheSameHeadAreReplicas) {
  run_ranks(8, [](Communicator& world) {
    Mesh mesh(world, parallel_sizes(8, 4, 1, 1, 1), 2);
    EXPECT_THROW(mesh.replicas({.tensor_copies = 3}), InternalError);
    Communicator& replicas = mesh.replicas({.tensor_copies = 2});
    const bool first_head = world.rank() % 4 < 2;
    EXPECT_EQ(replicas.members(),
              first_head ? std::vector<int>({0, 1, 4, 5}) : std::vector<int>({2, 3, 6, 7}));
    expect_meets(replicas);
  });
}

TEST(Mesh, HeadsAreCopiedWhereRanksOutnumberThem) {
  ModelConfig config;
  config.num_key_value_heads = 2;
  EXPECT_EQ(head_copies(parallel_sizes(8, 4, 1, 1, 1), config), 2);
  EXPECT_EQ(head_copies(parallel_sizes(8, 2, 1, 1, 1), config), 1);
  config.num_key_value_heads = 8;
  EXPECT_EQ(head_copies(parallel_sizes(8, 4, 1, 1, 1), config), 1);
  config.num_key_value_heads = 1;
  config.mla.emplace();
  EXPECT_EQ(head_copies(parallel_sizes(8, 4, 1, 1, 1), config), 1);
}

TEST(Mesh, RefusesAnotherNumberOfRanks) {
  EXPECT_THROW(
      run_ranks(2, [](Communicator& world) { Mesh(world, parallel_sizes(4, 1, 1, 1, 1)); }),
      InternalError);
}

}  // namespace
}  // namespace moetron
