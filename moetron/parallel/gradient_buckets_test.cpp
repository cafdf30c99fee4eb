#include "moetron/parallel/gradient_buckets.h"

#include <gmock/gmock.h>
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/comm/fake_communicator.h"
#include "moetron/comm/order_check.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

constexpr int64_t kOneBucket = int64_t{1} << 40;

// Parameters of every kind, of sizes that are no multiples of anything, in the forward's order.
struct SomeParameters {
  Parameter embedding{"embedding", {31, 11}, at::kBFloat16, {.replicas = kTensorDivided}};
  Parameter norm{"norm", {77}, at::kFloat, {.init = Init::kOnes}};
  Parameter key;
  Parameter bias{"bias", {8}, at::kFloat, {.init = Init::kOnes, .role = Role::kBuffer}};
  Parameter expert{"expert", {17, 29}, at::kBFloat16, {.replicas = kExpertDivided}};
  Parameter last_norm{"last_norm", {5}, at::kFloat, {.init = Init::kOnes}};
  Parameter head{"head", {31, 11}, at::kBFloat16, {.replicas = kTensorDivided}};
  std::vector<Parameter*> all{&embedding, &norm, &key, &bias, &expert, &last_norm, &head};
  std::vector<Parameter*> trained{&embedding, &norm, &key, &expert, &last_norm};

  explicit SomeParameters(int64_t head_copies = 1)
      : key("key", {13, 11}, at::kBFloat16, {.replicas = {.tensor_copies = head_copies}}) {
    for (Parameter* parameter : all) parameter->initialize(1, 1);
    head.tie_to(embedding);
  }
};

TEST(GradientBuckets, SumsOverTheReplicasAndOwnsEachElementOnce) {
  for (const bool distributed : {false, true}) {
    for (const int64_t elements : {int64_t{1}, int64_t{400}, kOneBucket}) {
      run_ranks(8, [&](Communicator& world) {
        Mesh mesh(world, parallel_sizes(8, 4, 1, 2, 1), 2);
        SomeParameters p(2);
        std::map<Parameter*, at::Tensor> before;
        for (Parameter* parameter : p.all) before[parameter] = parameter->value().clone();
        GradientBuckets buckets(p.all, mesh,
                                {.distributed = distributed, .bucket_elements = elements});
        for (Parameter* parameter : p.trained) parameter->grad().fill_(world.rank() + 1);
        buckets.reduce();
        std::map<Parameter*, at::Tensor> counts;
        for (Parameter* parameter : p.trained) {
          counts[parameter] = at::zeros({parameter->value().numel()});
        }
        for (const OwnedStretch& owned : buckets.owned()) {
          Communicator& replicas = mesh.replicas(owned.parameter->settings().replicas);
          float sum = 0;
          for (const int member : replicas.members()) sum += static_cast<float>(member + 1);
          EXPECT_TRUE(at::equal(owned.grad, at::full(owned.grad.sizes(), sum)));
          const int64_t count = owned.value.numel();
          EXPECT_TRUE(at::equal(owned.value,
                                owned.parameter->value().flatten().narrow(0, owned.begin, count)));
          counts.at(owned.parameter).narrow(0, owned.begin, count).add_(1);
        }
        for (Parameter* parameter : p.trained) {
          Communicator& replicas = mesh.replicas(parameter->settings().replicas);
          const at::Tensor& owners = counts.at(parameter);
          replicas.all_reduce(owners).wait();
          const int want = distributed ? 1 : replicas.size();
          EXPECT_TRUE(at::equal(owners, at::full_like(owners, want))) << parameter->label();
        }
        for (Parameter* parameter : p.all) {
          EXPECT_TRUE(at::equal(parameter->value(), before[parameter])) << parameter->label();
        }
        EXPECT_FALSE(p.bias.has_grad());
      });
    }
  }
}

TEST(GradientBuckets, GathersWhatEachRankUpdated) {
  for (const bool overlap : {false, true}) {
    run_ranks(4, [&](Communicator& world) {
      Mesh mesh(world, parallel_sizes(4, 2, 1, 1, 1));
      SomeParameters p;
      GradientBuckets buckets(
          p.all, mesh, {.distributed = true, .overlap_gather = overlap, .bucket_elements = 400});
      for (int step = 1; step <= 3; ++step) {
        for (const OwnedStretch& owned : buckets.owned()) {
          const int64_t first = owned.begin + step;
          owned.value.copy_(at::arange(first, first + owned.value.numel()));
        }
        buckets.gather_values();
        // The tied head reads the embedding's value.
        for (Parameter* parameter : {&p.head, &p.norm, &p.key, &p.bias, &p.expert, &p.last_norm}) {
          if (overlap) buckets.wait_values(std::span(&parameter, 1));
          if (parameter == &p.bias) continue;
          const at::Tensor flat = parameter->value().flatten();
          EXPECT_TRUE(at::equal(flat, at::arange(step, step + flat.numel()).to(flat.dtype())))
              << parameter->label();
        }
        if (overlap) buckets.wait_all_values();
      }
      EXPECT_EQ(p.bias.value().min().item<float>(), 1);
    });
  }
}

TEST(GradientBuckets, ZeroClearsTiedUsesTooAndWaitsForWhatIsUnderWay) {
  for (const bool distributed : {false, true}) {
    run_ranks(2, [&](Communicator& world) {
      Mesh mesh(world, parallel_sizes(2, 1, 1, 1, 1));
      SomeParameters p;
      GradientBuckets buckets(
          p.all, mesh, {.distributed = distributed, .overlap_reduce = true, .bucket_elements = 1});
      for (int step = 0; step < 2; ++step) {
        for (Parameter* parameter : p.trained) parameter->grad().fill_(1);
        p.head.grad().fill_(1);
        buckets.parameters_done(p.all);
        buckets.clear();
        for (Parameter* parameter : p.trained) {
          EXPECT_EQ(parameter->grad().abs().max().item<float>(), 0) << parameter->label();
        }
        EXPECT_EQ(p.head.grad().abs().max().item<float>(), 0);
      }
      p.norm.grad().fill_(1);  // and the next step begins from nothing
      buckets.parameters_done(p.all);
      buckets.reduce();
      for (const OwnedStretch& owned : buckets.owned()) {
        const float want = owned.parameter == &p.norm ? 2 : 0;
        EXPECT_TRUE(at::equal(owned.grad, at::full_like(owned.grad, want)));
      }
    });
  }
}

int64_t head_copies_of(const ParallelSizes& sizes) {
  return sizes.tp == 1 ? 1 : sizes.tp / 2;
}

// What rank 0 of `sizes` records.
struct Recorded {
  std::shared_ptr<CommLog> log = std::make_shared<CommLog>();
  std::unique_ptr<Communicator> world;
  Mesh mesh;
  SomeParameters p;
  GradientBuckets buckets;

  Recorded(const ParallelSizes& sizes, const BucketSettings& settings, int rank = 0)
      : world(make_fake_world(rank, static_cast<int>(sizes.world), log)),
        mesh(*world, sizes, head_copies_of(sizes)),
        p(head_copies_of(sizes)),
        buckets(p.all, mesh, settings) {}

  // "OPERATION GROUP" of everything since the last call.
  std::vector<std::string> take() {
    std::vector<std::string> names;
    for (const CommRecord& record : *log) names.push_back(record.operation + " " + record.group);
    log->clear();
    return names;
  }
  void done(std::vector<Parameter*> parameters) { buckets.parameters_done(parameters); }
};

TEST(GradientBuckets, ReducesABucketAsSoonAsItIsComplete) {
  Recorded r(parallel_sizes(8, 4, 1, 2, 1), {.overlap_reduce = true, .bucket_elements = 1});
  r.done({&r.p.head, &r.p.bias});  // tied and frozen: in no bucket
  EXPECT_THAT(r.take(), testing::IsEmpty());
  r.done({&r.p.last_norm});
  EXPECT_THAT(r.take(), testing::ElementsAre("all_reduce dp x tp"));
  r.done({&r.p.key});  // waits for the expert, which comes before it in the order of all ranks
  EXPECT_THAT(r.take(), testing::IsEmpty());
  r.done({&r.p.expert});
  EXPECT_THAT(r.take(), testing::ElementsAre("all_reduce edp", "all_reduce dp x head copies"));
  EXPECT_THROW(r.done({&r.p.key}), InternalError);
  r.buckets.reduce();
  EXPECT_THAT(r.take(), testing::ElementsAre("all_reduce dp x tp", "all_reduce dp"));
  r.done({&r.p.last_norm});  // the next step
  EXPECT_THAT(r.take(), testing::ElementsAre("all_reduce dp x tp"));
}

TEST(GradientBuckets, BucketsHoldOneKindOfReplicasAndOneDtype) {
  Recorded r(parallel_sizes(8, 4, 1, 2, 1), {.overlap_reduce = true});
  r.done({&r.p.last_norm, &r.p.expert, &r.p.key});
  EXPECT_THAT(r.take(), testing::ElementsAre("all_reduce edp", "all_reduce dp x head copies"));
  r.done({&r.p.norm});  // both norms in one
  EXPECT_THAT(r.take(), testing::ElementsAre("all_reduce dp x tp"));
}

TEST(GradientBuckets, GathersInTheOrderOfTheForward) {
  Recorded r(parallel_sizes(8, 4, 1, 2, 1), {.distributed = true, .bucket_elements = 1});
  r.buckets.gather_values();
  EXPECT_THAT(r.take(), testing::ElementsAre("all_gather dp", "all_gather dp x tp",
                                             "all_gather dp x head copies", "all_gather edp",
                                             "all_gather dp x tp"));
}

TEST(GradientBuckets, WithoutOverlapNothingStartsBeforeReduce) {
  Recorded r(parallel_sizes(8, 4, 1, 2, 1), {.bucket_elements = 1});
  r.done(r.p.all);
  EXPECT_THAT(r.take(), testing::IsEmpty());
  r.buckets.gather_values();  // every rank has updated all values
  EXPECT_THAT(r.take(), testing::IsEmpty());
  r.buckets.reduce();
  EXPECT_EQ(r.take().size(), 5u);
}

TEST(GradientBuckets, AGroupOfOneNeedsNoMessage) {
  Recorded r(parallel_sizes(1, 1, 1, 1, 1), {.distributed = true, .overlap_reduce = true});
  r.done(r.p.all);
  r.buckets.reduce();
  r.buckets.gather_values();
  r.buckets.wait_all_values();
  EXPECT_THAT(r.take(), testing::IsEmpty());
  EXPECT_EQ(r.buckets.owned().size(), 5u);
}

TEST(GradientBuckets, ADistributedOptimizerSendsNoMore) {
  const ParallelSizes sizes = parallel_sizes(8, 4, 1, 2, 1);
  // Elements of a bucket: each parameter rounded up to 64 (341 to 384, 143 to 192, 493 to 512, 77
  // and 5 to 128 + 64), with a distributed optimizer the sum to 64 a replica.
  for (const bool distributed : {false, true}) {
    Recorded r(sizes, {.distributed = distributed});
    r.buckets.reduce();
    const auto sent = [&](const char* group) { return sum_bytes_sent(*r.log, group); };
    if (distributed) {
      EXPECT_EQ(sent("dp x tp"),
                512 * 4 * 7 / 8);  // reduce_scatter: a bucket's bytes, less its own
      EXPECT_EQ(sent("dp"), 384 * 4 / 2);
      EXPECT_EQ(sent("dp x head copies"), 256 * 4 * 3 / 4);
      EXPECT_EQ(sent("edp"), 512 * 4 * 3 / 4);
      r.log->clear();
      r.buckets.gather_values();  // in the dtype of the values
      EXPECT_EQ(sent("dp x tp"), 512 * 4 * 7 / 8);
      EXPECT_EQ(sent("dp"), 384 * 2 / 2);
      EXPECT_EQ(sent("edp"), 512 * 2 * 3 / 4);
    } else {
      EXPECT_EQ(sent("dp x tp"), 2 * (128 + 64) * 4 * 7 / 8);
      EXPECT_EQ(sent("dp"), 2 * 384 * 4 / 2);
      EXPECT_EQ(sent("dp x head copies"), 2 * 192 * 4 * 3 / 4);
      EXPECT_EQ(sent("edp"), 2 * 512 * 4 * 3 / 4);
    }
  }
}

TEST(GradientBuckets, AllRanksAgreeOnTheOrder) {
  for (const int64_t elements : {int64_t{1}, int64_t{400}, kOneBucket}) {
    std::vector<CommLog> logs;
    for (int rank = 0; rank < 8; ++rank) {
      Recorded r(parallel_sizes(8, 4, 1, 2, 1),
                 {.distributed = true,
                  .overlap_reduce = true,
                  .overlap_gather = true,
                  .bucket_elements = elements},
                 rank);
      for (auto parameter = r.p.all.rbegin(); parameter != r.p.all.rend(); ++parameter) {
        r.done({*parameter});
      }
      r.buckets.reduce();
      r.buckets.gather_values();
      r.buckets.wait_values(r.p.all);
      logs.push_back(*r.log);
    }
    EXPECT_FALSE(logs.front().empty());
    const std::optional<OrderFault> fault = check_order(logs);
    EXPECT_FALSE(fault.has_value()) << fault->message;
  }
}

TEST(GradientBuckets, ParametersLieAligned) {
  Recorded r(parallel_sizes(8, 4, 1, 2, 1), {.distributed = true});
  for (const Parameter* parameter : r.p.trained) {
    EXPECT_EQ(parameter->value().storage_offset() % 64, 0) << parameter->label();
  }
  EXPECT_NE(r.p.norm.value().storage_offset(), r.p.last_norm.value().storage_offset());
}

TEST(GradientBuckets, AParameterIsListedOnce) {
  run_ranks(1, [](Communicator& world) {
    Mesh mesh(world, {});
    Parameter w("w", {3}, at::kFloat, {});
    EXPECT_THROW(GradientBuckets({&w, &w}, mesh, {}), InternalError);
  });
}

}  // namespace
}  // namespace moetron
