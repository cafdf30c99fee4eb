// The update on the host against itself: every width, every way that a parameter can be divided or
// staged, gives the same bits.
#include "moetron/optim/host_update.h"

#include <cmath>
#include <limits>
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/optim_test_data.h"

namespace moetron {
namespace {

constexpr AdamWCoefficients kCoefficients{0.3f, 0.999f, 0.1f, 0.95f, 0.05f, 1e-8f, -1e-2f};
const AdamWSettings kHostSettings{0.9, 0.95, 1e-8, 0.1};

// Elements [shift, shift + count) of arrays that are longer, so that what lies round them shows.
struct Arrays {
  at::Tensor value, exp_avg, exp_avg_sq, grad, rounded;

  explicit Arrays(int64_t size)
      : value(at::randn(size)),
        exp_avg(at::randn(size)),
        exp_avg_sq(at::rand(size)),
        grad(at::randn(size)),
        rounded(at::zeros(size, at::kBFloat16)) {}
  Arrays(const Arrays& other)
      : value(other.value.clone()),
        exp_avg(other.exp_avg.clone()),
        exp_avg_sq(other.exp_avg_sq.clone()),
        grad(other.grad),
        rounded(other.rounded.clone()) {}

  void update(int64_t shift, int64_t count, bool rounds, VectorWidth width) {
    auto* bf16 = reinterpret_cast<uint16_t*>(rounded.data_ptr<at::BFloat16>()) + shift;
    adamw_update({value.data_ptr<float>() + shift, exp_avg.data_ptr<float>() + shift,
                  exp_avg_sq.data_ptr<float>() + shift, grad.data_ptr<float>() + shift,
                  rounds ? bf16 : nullptr},
                 count, kCoefficients, width);
  }
};

// NaN equals NaN.
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::ScalarType bits = a.scalar_type() == at::kFloat ? at::kInt : at::kShort;
  return at::equal(a.view(bits), b.view(bits));
}

TEST(AdamWUpdate, HasTheSameBitsAtEveryWidth) {
  at::manual_seed(21);
  Arrays start(1200);
  const float odd[] = {std::numeric_limits<float>::infinity(), 3.4e38f, 1e-42f, 0, 1.00390625f};
  for (int64_t i = 0; i < 100; ++i) start.value[7 * i].fill_(odd[i % 5]);
  for (int64_t count = 0; count <= 1000; count += count < 70 ? 1 : 310) {
    for (int64_t shift = 0; shift < 18; shift += 1 + shift / 4) {
      for (const bool rounds : {false, true}) {
        SCOPED_TRACE(concat(count, " elements from ", shift, rounds ? ", rounded" : ""));
        Arrays plain = start;
        plain.update(shift, count, rounds, VectorWidth::kBaseline);
        for (int width = 1; width <= static_cast<int>(widest_vectors()); ++width) {
          Arrays wide = start;
          wide.update(shift, count, rounds, static_cast<VectorWidth>(width));
          EXPECT_TRUE(same_bits(wide.value, plain.value));
          EXPECT_TRUE(same_bits(wide.exp_avg, plain.exp_avg));
          EXPECT_TRUE(same_bits(wide.exp_avg_sq, plain.exp_avg_sq));
          EXPECT_TRUE(same_bits(wide.rounded, plain.rounded));
        }
        at::Tensor want = at::zeros(1200, at::kBFloat16);
        if (rounds) {
          want.narrow(0, shift, count).copy_(plain.value.narrow(0, shift, count));
        }
        EXPECT_TRUE(same_bits(plain.rounded, want)) << "rounds as torch, and nothing else";
        EXPECT_TRUE(
            same_bits(plain.value.slice(0, shift + count), start.value.slice(0, shift + count)));
      }
    }
  }
}

TEST(AdamWUpdate, ANanStaysOne) {
  Arrays arrays(40);
  arrays.grad.fill_(std::numeric_limits<float>::quiet_NaN());
  arrays.update(0, 40, true, widest_vectors());
  EXPECT_TRUE(arrays.rounded.isnan().all().item<bool>());
}

TEST(ZerosApart, LieApart) {
  std::vector<const void*> others;
  std::vector<at::Tensor> made;
  for (int i = 0; i < 5; ++i) {
    made.push_back(zeros_apart_from(others, 100000 + i));
    EXPECT_EQ(made.back().numel(), 100000 + i);
    EXPECT_EQ(made.back().abs().max().item<float>(), 0);
    const auto place = reinterpret_cast<uintptr_t>(made.back().const_data_ptr());
    for (const void* other : others) {
      const uintptr_t apart = (place - reinterpret_cast<uintptr_t>(other)) % 4096;
      EXPECT_GE(std::min(apart, 4096 - apart), 256u);
    }
    others.push_back(made.back().const_data_ptr());
  }
}

std::vector<HostPart> make_parts(at::ScalarType dtype, const std::vector<int64_t>& counts) {
  std::vector<HostPart> parts;
  for (const int64_t count : counts) {
    const at::Tensor value = at::randn(count).to(dtype);
    HostPart part{value, at::zeros(count), at::zeros(count), at::zeros(count), {}, kCoefficients};
    if (dtype != at::kFloat) part.master = value.to(at::kFloat);
    parts.push_back(part);
  }
  return parts;
}

TEST(StagedUpdate, GivesTheBitsOfTheUpdateInPlace) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    // Parts of less than a chunk, of a chunk, of several.
    const std::vector<int64_t> counts{1, 1023, 1024, 1025, 5000, 3, 4096};
    at::manual_seed(22);
    std::vector<HostPart> in_place = make_parts(dtype, counts);
    at::manual_seed(22);
    std::vector<HostPart> staged = make_parts(dtype, counts);
    StagedUpdate update(at::kCPU, /*pinned=*/false, 1024);
    for (const HostPart& part : staged) update.add_part(part.grad);
    for (int step = 1; step <= 3; ++step) {
      for (size_t i = 0; i < counts.size(); ++i) {
        staged[i].grad.copy_(in_place[i].grad.normal_());
        staged[i].coefficients.keep = in_place[i].coefficients.keep = i % 2 == 0 ? 0.9f : 1;
        update_on_host(in_place[i]);
        if (static_cast<int>(i) % 3 == step % 3) {
          update.grad_done(i);
          staged[i].grad.fill_(NAN);  // nobody reads it again
        }
      }
      update.begin();
      update.update(staged);
    }
    for (size_t i = 0; i < counts.size(); ++i) {
      SCOPED_TRACE(counts[i]);
      EXPECT_TRUE(same_bits(staged[i].value, in_place[i].value));
      EXPECT_TRUE(same_bits(staged[i].exp_avg, in_place[i].exp_avg));
      EXPECT_TRUE(same_bits(staged[i].exp_avg_sq, in_place[i].exp_avg_sq));
      if (dtype == at::kFloat) continue;
      EXPECT_TRUE(same_bits(staged[i].master, in_place[i].master));
      EXPECT_TRUE(same_bits(staged[i].value, staged[i].master.to(dtype)));
    }
  }
}

// A model of three parameters whose optimizer has a fraction of its states on the host.
struct Offloaded {
  Parameter embedding, norm, head;
  OneRank rank;
  AdamW adamw;

  Offloaded(const at::TensorOptions& options, OffloadSettings offload)
      : embedding("embed", {70, 19}, options, {}),
        norm("norm", {131}, options, {.init = Init::kOnes, .weight_decay = false}),
        head("head", {33, 101}, options, {}),
        rank({&embedding, &norm, &head}),
        adamw(rank.buckets.owned(), kHostSettings, offload) {
    for (Parameter* parameter : parameters()) parameter->initialize(5, 0.5);
    adamw.reset_masters();
  }

  std::vector<Parameter*> parameters() { return {&embedding, &norm, &head}; }

  void train(int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; ++step) {
      at::manual_seed(static_cast<uint64_t>(step));
      for (Parameter* parameter : parameters()) {
        parameter->grad().copy_(at::randn(parameter->value().sizes()));
      }
      adamw.grad_done(head);  // and of the others step() has to find out
      adamw.step(1e-2, step, 0.7);
    }
  }

  // Whole tensors by name, on the host; every element must be there once.
  std::map<std::string, at::Tensor> states() const {
    std::map<std::string, at::Tensor> whole;
    for (const NamedSlice& slice : adamw.states()) {
      at::Tensor& tensor = whole[slice.name];
      if (!tensor.defined()) tensor = at::full(slice.global_shape, NAN);
      const at::Tensor place = part(tensor, slice);
      EXPECT_TRUE(place.isnan().all().item<bool>()) << slice.name << " is there twice";
      place.copy_(slice.view);
    }
    for (const auto& [name, tensor] : whole) {
      EXPECT_FALSE(tensor.isnan().any().item<bool>()) << name << " has a gap";
    }
    return whole;
  }

  void resume(const Offloaded& other) {
    const std::map<std::string, at::Tensor> whole = other.states();
    for (const NamedSlice& slice : adamw.states()) {
      slice.view.copy_(part(whole.at(slice.name), slice));
    }
    embedding.value().copy_(other.embedding.value());
    norm.value().copy_(other.norm.value());
    head.value().copy_(other.head.value());
  }

  static at::Tensor part(const at::Tensor& whole, const NamedSlice& slice) {
    at::Tensor found = whole;
    for (size_t dim = 0; dim < slice.begin.size(); ++dim) {
      const auto d = static_cast<int64_t>(dim);
      found = found.narrow(d, slice.begin[dim], slice.view.size(d));
    }
    return found;
  }
};

void expect_same(Offloaded& found, Offloaded& wanted) {
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(same_bits(found.parameters()[i]->value(), wanted.parameters()[i]->value()));
  }
  const auto found_states = found.states(), wanted_states = wanted.states();
  ASSERT_EQ(found_states.size(), wanted_states.size());
  for (const auto& [name, tensor] : wanted_states) {
    EXPECT_TRUE(same_bits(found_states.at(name), tensor)) << name;
  }
}

TEST(Offload, NoFractionChangesABitOrAName) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Offloaded plain(dtype, {});
    plain.train(1, 6);
    EXPECT_EQ(plain.states().count("master.head"), dtype == at::kBFloat16 ? 1u : 0u);
    for (const double fraction : {0.0, 0.001, 0.3, 0.55, 0.7, 0.999, 1.0}) {
      SCOPED_TRACE(fraction);
      Offloaded whole(dtype, {fraction, false});
      whole.train(1, 3);
      Offloaded resumed(dtype, {0.8 * (1 - fraction), false});
      resumed.resume(whole);
      resumed.train(4, 6);
      expect_same(resumed, plain);
    }
  }
}

// The last quarter of 1000 elements, but that a cut lies at a multiple of 64.
TEST(Offload, TakesTheLastElements) {
  Parameter w("w", {1000}, at::kFloat, {});
  const OneRank rank({&w});
  const AdamW adamw(rank.buckets.owned(), {}, {0.25});
  EXPECT_EQ(adamw.state_bytes(c10::kCPU), 1000 * 8);
  EXPECT_EQ(adamw.state_bytes(c10::kCUDA), 0);
  const std::vector<NamedSlice> states = adamw.states();
  ASSERT_EQ(states.size(), 4u);
  EXPECT_EQ(states[0].view.numel(), 704);
  EXPECT_EQ(states[2].begin, std::vector<int64_t>{704});
  EXPECT_EQ(states[2].view.numel(), 296);
}

TEST(Offload, RefusesAFractionBeyondOne) {
  EXPECT_THROW(AdamW({}, {}, {1.5}), ConfigError);
  EXPECT_THROW(AdamW({}, {}, {-0.1}), ConfigError);
  EXPECT_THROW(AdamW({}, {}, {std::nan("")}), ConfigError);
}

// Part on a GPU and part beside it, against the host alone. A chunk of the default size holds all
// of it, the next test has several.
TEST(Offload, OnAGpuGivesTheBitsOfTheHost) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Offloaded plain(dtype, {});
    plain.train(1, 5);
    for (const bool pin : {false, true}) {
      Offloaded gpu(at::TensorOptions(dtype).device(at::kCUDA), {0.6, pin});
      gpu.train(1, 5);
      EXPECT_GT(gpu.adamw.state_bytes(c10::kCPU), gpu.adamw.state_bytes(c10::kCUDA));
      EXPECT_GT(gpu.adamw.state_bytes(c10::kCUDA), 0);
      for (Parameter* parameter : gpu.parameters()) parameter->value() = parameter->value().cpu();
      expect_same(gpu, plain);
    }
  }
}

TEST(StagedUpdate, OnAGpuGivesTheBitsOfTheHost) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const std::vector<int64_t> counts{1, 100000, 1024, 3, 70001};
    at::manual_seed(23);
    std::vector<HostPart> host = make_parts(dtype, counts);
    at::manual_seed(23);
    std::vector<HostPart> gpu = make_parts(dtype, counts);
    for (HostPart& part : gpu) {
      part.value = part.value.to(at::kCUDA);
      part.grad = part.grad.to(at::kCUDA);
    }
    StagedUpdate update(at::Device(at::kCUDA, 0), /*pinned=*/true, 4096);
    for (const HostPart& part : gpu) update.add_part(part.grad);
    for (int step = 1; step <= 5; ++step) {
      for (size_t i = 0; i < counts.size(); ++i) {
        gpu[i].grad.copy_(host[i].grad.normal_());
        update_on_host(host[i]);
        if (static_cast<int>(i) % 3 == step % 3) update.grad_done(i);
      }
      update.begin();
      update.update(gpu);
    }
    for (size_t i = 0; i < counts.size(); ++i) {
      EXPECT_TRUE(same_bits(gpu[i].value.cpu(), host[i].value));
      EXPECT_TRUE(same_bits(gpu[i].exp_avg, host[i].exp_avg));
    }
  }
}

}  // namespace
}  // namespace moetron
