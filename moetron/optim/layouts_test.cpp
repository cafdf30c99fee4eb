// Gradient buckets, AdamW and the gradient norm together, on ranks as threads, against one rank.
// Gradients are integers, so that their sums, and the sums of their squares, are exact in any
// order: every layout must then give the same bits.
#include <limits>
#include <map>
#include <mutex>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/grad_norm.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

constexpr int64_t kHidden = 19, kHeads = 2, kExperts = 4, kWidth = 12;

// The whole tensors, with what rank holds of them.
struct TestModel {
  std::vector<std::unique_ptr<Parameter>> owned;
  std::vector<Parameter*> parameters;

  TestModel(Mesh& mesh, at::ScalarType dtype) {
    const ParallelSizes& sizes = mesh.sizes();
    const int64_t tp = mesh.coordinate(MeshAxis::kTp);
    const ShardOf rows{0, tp, sizes.tp}, columns{1, tp, sizes.tp};
    const int64_t vocab_rows = (45 + sizes.tp - 1) / sizes.tp;  // the last shards are padded
    Parameter& embedding = add("embed", {vocab_rows, kHidden}, dtype, kTensorDivided,
                               {piece_of_shard("embed", {45, kHidden}, rows, 0)});
    add("norm", {131}, at::kFloat, kWholeOnEveryRank, {piece_of_rows("norm", {131}, 0, 1)});
    const int64_t copies = std::max<int64_t>(1, sizes.tp / kHeads);
    const ShardOf head{0, tp / copies, sizes.tp / copies};
    const int64_t key_rows = 16 / head.count;
    add("kv", {2 * key_rows, kHidden}, dtype, {.tensor_copies = copies},
        {piece_of_shard("k", {16, kHidden}, head, 0),
         piece_of_shard("v", {16, kHidden}, head, key_rows * kHidden)});
    add("down", {21, 24 / sizes.tp}, dtype, kTensorDivided,
        {piece_of_shard("down", {21, 24}, columns, 0)});
    add("router", {kExperts, kHidden}, at::kFloat, kWholeOnEveryRank,
        {piece_of_rows("router", {kExperts, kHidden}, 0, kHidden)});
    add_experts(mesh, dtype);
    Parameter& output = add("head", {vocab_rows, kHidden}, dtype, kTensorDivided,
                            {piece_of_shard("embed", {45, kHidden}, rows, 0)});
    for (Parameter* parameter : parameters) parameter->initialize(3, 0.5);
    output.tie_to(embedding);
  }

  Parameter& add(const char* label, std::vector<int64_t> shape, at::ScalarType dtype,
                 const ReplicaRule& replicas, std::vector<ParameterPiece> pieces) {
    ParameterSettings settings{.replicas = replicas};
    if (shape.size() == 1) settings.init = Init::kOnes;
    if (shape.size() == 1) settings.weight_decay = false;
    parameters.push_back(owned
                             .emplace_back(std::make_unique<Parameter>(label, shape, dtype,
                                                                       std::move(pieces), settings))
                             .get());
    return *parameters.back();
  }

  // This rank's experts in one storage, each a shard of its rows.
  void add_experts(Mesh& mesh, at::ScalarType dtype) {
    const ParallelSizes& sizes = mesh.sizes();
    const int64_t count = kExperts / sizes.ep, rows = kWidth / sizes.tpe;
    std::vector<ParameterPiece> pieces;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t expert = mesh.coordinate(MeshAxis::kEp) * count + i;
      pieces.push_back(piece_of_shard(concat("expert.", expert), {kWidth, kHidden},
                                      {0, mesh.coordinate(MeshAxis::kTpe), sizes.tpe},
                                      i * rows * kHidden));
    }
    add("experts", {count, rows, kHidden}, dtype, kExpertDivided, std::move(pieces));
  }
};

// Integers around 0, the whole tensor's.
at::Tensor draw(const NamedSlice& slice, uint64_t seed, int64_t step) {
  const at::Tensor whole = at::empty(slice.global_shape);
  const std::span<float> values(whole.data_ptr<float>(), static_cast<size_t>(whole.numel()));
  RandomStream(seed, static_cast<uint64_t>(step), slice.name).fill_normal(values, 0, 8);
  return whole.round_();
}

at::Tensor part_of(const at::Tensor& whole, const NamedSlice& slice) {
  at::Tensor part = whole;
  for (size_t dim = 0; dim < slice.begin.size(); ++dim) {
    const auto d = static_cast<int64_t>(dim);
    part = part.narrow(d, slice.begin[dim], slice.view.size(d));
  }
  return part;
}

// Adds what rank `replica` of `count` contributes to a gradient that is the same in every layout:
// noise, which the first replica takes back.
void add_gradient(Parameter& parameter, int replica, int count, uint64_t seed, int64_t step) {
  for (NamedSlice& slice : parameter.slices(parameter.grad())) {
    at::Tensor mine = replica == 0 ? draw(slice, seed, step) : draw(slice, 1000 + replica, step);
    for (int other = 1; replica == 0 && other < count; ++other) {
      mine.sub_(draw(slice, 1000 + other, step));
    }
    slice.view.add_(part_of(mine, slice));
  }
}

// Whole tensors by name, put together from the slices of all ranks.
struct WholeTensors {
  std::mutex mutex;
  std::map<std::string, at::Tensor> values, counts;

  void add(const std::vector<NamedSlice>& slices) {
    const std::lock_guard lock(mutex);
    for (const NamedSlice& slice : slices) {
      at::Tensor& value = values[slice.name];
      at::Tensor& count = counts[slice.name];
      if (!value.defined()) {
        value = at::zeros(slice.global_shape, slice.view.options());
        count = at::zeros(slice.global_shape, at::kInt);
      }
      const at::Tensor held = part_of(value, slice), times = part_of(count, slice);
      EXPECT_TRUE(at::equal(at::where(times > 0, held, slice.view), slice.view))
          << slice.name << ": replicas differ";
      held.copy_(slice.view);
      times.add_(1);
    }
  }
};

struct Outcome {
  WholeTensors weights, states;
  std::vector<double> norms;
};

struct Case {
  ParallelSizes sizes;
  at::ScalarType dtype = at::kFloat;
  BucketSettings buckets = {};
  float grad_scale = 1;  // other than a power of two: sums are not exact
};

void backward(TestModel& model, Mesh& mesh, GradientBuckets& buckets, const Case& c, int64_t step) {
  Parameter& head = *model.parameters.back();
  for (size_t i = model.parameters.size(); i-- > 0;) {
    Parameter& parameter = *model.parameters[i];
    Communicator& replicas = mesh.replicas(parameter.settings().replicas);
    if (&parameter == &head) {
      head.grad().fill_(replicas.rank() == 0 ? 3 : 0);
    } else {
      add_gradient(parameter, replicas.rank(), replicas.size(), 77, step);
      if (i == 0) head.fold_tied_grad();
      parameter.grad().mul_(c.grad_scale);
    }
    buckets.parameters_done(std::span(&model.parameters[i], 1));
  }
}

void train(Communicator& world, const Case& c, Outcome& run) {
  const at::NoGradGuard no_grad;
  Mesh mesh(world, c.sizes, std::max<int64_t>(1, c.sizes.tp / kHeads));
  TestModel model(mesh, c.dtype);
  GradientBuckets buckets(model.parameters, mesh, c.buckets);
  AdamW adamw(buckets.owned(), {0.9, 0.95, 1e-8, 0.1});
  GradNormMeter meter(buckets.owned(), mesh, c.buckets.distributed);
  for (int64_t step = 1; step <= 3; ++step) {
    for (Parameter* parameter : model.parameters) {
      buckets.wait_values(std::span(&parameter, 1));
      EXPECT_TRUE(parameter->value().isfinite().all().item<bool>());
    }
    buckets.clear();
    backward(model, mesh, buckets, c, step);
    buckets.reduce();
    const GradNorm norm = meter.measure();
    EXPECT_EQ(norm.non_finite, "");
    if (world.rank() == 0) run.norms.push_back(norm.norm);
    const at::Tensor all = at::full({1}, norm.norm, at::kDouble);
    world.all_reduce(all, ReduceOp::kMax).wait();
    EXPECT_EQ(all.item<double>(), norm.norm);  // every rank has the same bits
    adamw.step(1e-2, step, clip_coefficient(norm.norm, 1.0));
    buckets.gather_values();
  }
  buckets.wait_all_values();
  for (Parameter* parameter : model.parameters) {
    run.weights.add(parameter->slices(parameter->value()));
  }
  run.states.add(adamw.states());
}

void expect_equal(const WholeTensors& a, const WholeTensors& b) {
  ASSERT_EQ(a.values.size(), b.values.size());
  for (const auto& [name, value] : a.values) {
    EXPECT_TRUE(at::equal(value, b.values.at(name))) << name;
  }
}

std::vector<ParallelSizes> layouts() {
  return {parallel_sizes(2, 1, 1, 1, 1), parallel_sizes(2, 2, 1, 2, 1),
          parallel_sizes(4, 2, 1, 2, 1), parallel_sizes(4, 1, 1, 2, 2),
          parallel_sizes(8, 4, 1, 4, 1), parallel_sizes(8, 2, 1, 2, 2)};
}

std::vector<BucketSettings> all_settings() {
  std::vector<BucketSettings> all;
  for (const int64_t elements : {int64_t{1}, int64_t{600}, int64_t{1} << 40}) {
    for (int bits = 0; bits < 8; ++bits) {
      all.push_back({(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, elements});
    }
  }
  return all;
}

std::string text(const BucketSettings& b) {
  return concat("distributed ", b.distributed, ", overlap_reduce ", b.overlap_reduce,
                ", overlap_gather ", b.overlap_gather, ", bucket_elements ", b.bucket_elements);
}

TEST(Layouts, GiveTheBitsOfOneRank) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Outcome one;
    run_ranks(1, [&](Communicator& world) { train(world, {{}, dtype}, one); });
    for (const ParallelSizes& sizes : layouts()) {
      for (const BucketSettings& settings : all_settings()) {
        SCOPED_TRACE(concat(describe(sizes), ": ", text(settings)));
        Outcome many;
        run_ranks(static_cast<int>(sizes.world), [&](Communicator& world) {
          train(world, {sizes, dtype, settings}, many);
        });
        EXPECT_EQ(many.norms, one.norms);
        expect_equal(one.weights, many.weights);
        expect_equal(one.states, many.states);
        for (const auto& [name, count] : many.states.counts) {
          EXPECT_GE(count.min().item<int>(), 1) << name;
          if (settings.distributed) {
            EXPECT_EQ(count.max().item<int>(), 1) << name;
          }
        }
        EXPECT_EQ(many.states.counts.at("exp_avg.norm").sum().item<int64_t>(),
                  131 * (settings.distributed ? 1 : sizes.world));
      }
    }
  }
}

TEST(Layouts, OptimizerSettingsChangeNoBitOfInexactSums) {
  const ParallelSizes sizes = parallel_sizes(8, 2, 1, 2, 1);
  Outcome plain;
  run_ranks(8, [&](Communicator& world) { train(world, {sizes, at::kFloat, {}, 0.1f}, plain); });
  for (const BucketSettings& settings : all_settings()) {
    SCOPED_TRACE(text(settings));
    Outcome other;
    run_ranks(8, [&](Communicator& world) {
      train(world, {sizes, at::kFloat, settings, 0.1f}, other);
    });
    expect_equal(plain.weights, other.weights);
    expect_equal(plain.states, other.states);
    for (size_t step = 0; step < plain.norms.size(); ++step) {
      EXPECT_NEAR(other.norms[step] / plain.norms[step], 1, 1e-15);
    }
  }
}

TEST(Layouts, EveryRankNamesTheTensorThatIsNotFinite) {
  for (const bool distributed : {false, true}) {
    for (const ParallelSizes& sizes : layouts()) {
      SCOPED_TRACE(concat(describe(sizes), distributed ? ", distributed" : ""));
      run_ranks(static_cast<int>(sizes.world), [&](Communicator& world) {
        const at::NoGradGuard no_grad;
        Mesh mesh(world, sizes, std::max<int64_t>(1, sizes.tp / kHeads));
        TestModel model(mesh, at::kFloat);
        GradientBuckets buckets(model.parameters, mesh,
                                {.distributed = distributed, .bucket_elements = 600});
        GradNormMeter meter(buckets.owned(), mesh, distributed);
        buckets.clear();
        for (Parameter* parameter : model.parameters) parameter->grad().fill_(1);
        // The last rank alone meets a NaN, in the last element of its last expert.
        if (world.rank() == world.size() - 1) {
          Parameter& experts = *model.parameters[5];
          experts.grad().flatten()[-1].fill_(std::numeric_limits<float>::quiet_NaN());
        }
        buckets.reduce();
        EXPECT_EQ(meter.measure().non_finite, "expert.3");
      });
    }
  }
}

}  // namespace
}  // namespace moetron
