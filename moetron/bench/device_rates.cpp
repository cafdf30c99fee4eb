#include "moetron/bench/device_rates.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/bench/attention_cases.h"
#include "moetron/bench/bench_slice.h"
#include "moetron/bench/bench_timer.h"
#include "moetron/bench/host_link.h"
#include "moetron/bench/layer_parts.h"
#include "moetron/kernels/row_map.h"
#include "moetron/models/model.h"
#include "moetron/optim/host_update.h"

namespace moetron {
namespace {

constexpr int64_t kTokens = 4096;
constexpr BenchSlice kModels[] = {BenchSlice::kQwen3235b, BenchSlice::kDeepseekV3};
constexpr int64_t kHeadDims[] = {64, 128, 192};            // the last is latent attention's
constexpr int64_t kMostAdamParameters = int64_t{1} << 25;  // beyond the caches
constexpr double kHeating = 2;                             // seconds
constexpr int64_t kHostBytes = int64_t{1} << 28;

ModelConfig divided(ModelConfig config, int64_t by) {
  const auto divide = [by](int64_t& size) { size = std::max<int64_t>(1, size / by); };
  for (int64_t* size :
       {&config.hidden_size, &config.num_attention_heads, &config.num_key_value_heads,
        &config.vocab_size, &config.moe->expert_intermediate_size})
    divide(*size);
  if (config.moe->shared_intermediate_size > 0) divide(config.moe->shared_intermediate_size);
  if (config.mla) {
    divide(config.mla->q_lora_rank);
    divide(config.mla->kv_lora_rank);
  }
  return config;
}

// Adds up cases.
class RateSum {
 public:
  void add(double work, const SteadyTime& time) {
    const double rate = work / time.seconds;
    sum_.least = sum_.num_cases == 0 ? rate : std::min(sum_.least, rate);
    sum_.most = std::max(sum_.most, rate);
    sum_.spread += time.spread;
    ++sum_.num_cases;
    work_ += work;
    seconds_ += time.seconds;
  }

  MeasuredRate rate() const {
    MT_CHECK(sum_.num_cases > 0, "nothing was measured");
    MeasuredRate rate = sum_;
    rate.rate = work_ / seconds_;
    rate.spread /= static_cast<double>(sum_.num_cases);
    return rate;
  }

 private:
  MeasuredRate sum_;
  double work_ = 0, seconds_ = 0;
};

class DeviceBench {
 public:
  DeviceBench(c10::Device device, const CalibrationShapes& shapes, double seconds)
      : place_{device, device.is_cuda() ? at::kBFloat16 : at::kFloat},
        shapes_(shapes),
        seconds_(seconds) {}

  at::ScalarType dtype() const { return place_.dtype; }

  // A GPU at rest is faster than one that trains.
  void heat() {
    if (!place_.device.is_cuda()) return;
    const Linear linear = dense_products(shapes_.models.front()).front();
    const at::Tensor x = place_.random({shapes_.tokens, linear.in}),
                     weight = place_.random({linear.in, linear.out});
    repeat_for(place_.device, kHeating, /*at_once=*/20, [&] { at::mm(x, weight); });
  }

  MeasuredRate dense() {
    RateSum sum;
    for (const ModelConfig& model : shapes_.models)
      for (const Linear& linear : dense_products(model))
        visit_dense_product(place_, linear, shapes_.tokens, flops_into(sum));
    return sum.rate();
  }

  // Of a CPU, the first of the products in bf16.
  double dense_in_bf16() {
    RateSum sum;
    const CasePlace place{place_.device, at::kBFloat16};
    visit_dense_product(place, dense_products(shapes_.models.front()).front(), shapes_.tokens,
                        flops_into(sum));
    return sum.rate().rate;
  }

  MeasuredRate grouped() {
    RateSum sum;
    for (const ModelConfig& model : shapes_.models) {
      const MoeConfig& moe = *model.moe;
      const at::Tensor ends = ends_of(chosen_experts(moe), moe.num_experts);
      for (const Linear& linear :
           {Linear{"gate_up", model.hidden_size, 2 * moe.expert_intermediate_size},
            Linear{"down", moe.expert_intermediate_size, model.hidden_size}})
        visit_grouped_product(place_, linear, shapes_.tokens * moe.top_k, ends, flops_into(sum));
    }
    return sum.rate();
  }

  // Norms, activations, tokens to rows and back.
  MeasuredRate memory() {
    RateSum sum;
    const VisitCase visit = [&](const KernelCase& kernel) {
      sum.add(kernel.bytes, steady_time(place_.device, seconds_, kernel.run, kernel.prepare));
    };
    for (const ModelConfig& model : shapes_.models) {
      const MoeConfig& moe = *model.moe;
      visit_norm(place_, shapes_.tokens, model.hidden_size, /*is_latent=*/false, visit);
      visit_swiglu(place_, shapes_.tokens * moe.top_k, moe.expert_intermediate_size, {}, visit);
      const at::Tensor chosen = chosen_experts(moe);
      if (has_row_map(chosen)) {
        const RowMap map = build_row_map(chosen, 0, moe.num_experts);
        visit_row_moves(place_, model.hidden_size, map.row_of_choice, visit);
        continue;
      }
      const at::Tensor x = place_.random({shapes_.tokens, model.hidden_size});
      const at::Tensor token_of_row = at::randint(shapes_.tokens, {chosen.numel()}, at::kLong);
      const at::Tensor rows = at::empty({chosen.numel(), model.hidden_size}, x.options());
      visit({"index_select", "", bytes_of({x, token_of_row, rows}), 0,
             [&] { at::index_select(x, 0, token_of_row); }});
    }
    return sum.rate();
  }

  DeviceRates::Attention attention(int64_t head_dim) {
    ModelConfig model = shapes_.models.front();
    for (const ModelConfig& other : shapes_.models)
      if (other.head_dim == head_dim) model = other;
    model.head_dim = head_dim;
    RateSum forward, backward;
    visit_attention(place_, model, /*batch=*/1, shapes_.tokens, [&](const KernelCase& kernel) {
      RateSum& sum = kernel.prepare ? backward : forward;  // the backward is behind a forward
      sum.add(kernel.flops, steady_time(place_.device, seconds_, kernel.run, kernel.prepare));
    });
    return {head_dim, forward.rate(), backward.rate()};
  }

  // AdamW on the host, with the bf16 copy of values that a GPU takes.
  MeasuredRate adam() const {
    const int64_t count =
        std::min(kMostAdamParameters, 8 * kMostAdamParameters / shapes_.divided_by);
    std::vector<const void*> walked;
    const auto zeros = [&] {
      const at::Tensor made = zeros_apart_from(walked, count);
      walked.push_back(made.const_data_ptr());
      return made;
    };
    HostPart part{.master = {}, .coefficients = {1, 0.9999f, 0.1f, 0.95f, 0.05f, 1e-8f, -1e-3f}};
    part.master = zeros().normal_();
    part.grad = zeros().normal_();
    part.exp_avg = zeros();
    part.exp_avg_sq = zeros();
    part.value = part.master.to(at::kBFloat16);
    RateSum sum;
    sum.add(static_cast<double>(count),
            steady_time(at::kCPU, seconds_, [&] { update_on_host(part); }));
    return sum.rate();
  }

  double host_copy() const {
    HostLink link(place_.device);
    link.set_bytes(kHostBytes);
    return kHostBytes / steady_time(place_.device, seconds_, [&] { link.start()(); }).seconds;
  }

 private:
  VisitCase flops_into(RateSum& sum) const {
    return [&sum, this](const KernelCase& kernel) {
      sum.add(kernel.flops, steady_time(place_.device, seconds_, kernel.run, kernel.prepare));
    };
  }

  // [tokens, top_k] int64: a random choice, as an untrained router makes it.
  at::Tensor chosen_experts(const MoeConfig& moe) const {
    const auto options = at::TensorOptions(place_.device).dtype(at::kFloat);
    return std::get<1>(at::rand({shapes_.tokens, moe.num_experts}, options).topk(moe.top_k));
  }

  static at::Tensor ends_of(const at::Tensor& chosen, int64_t num_experts) {
    return at::bincount(chosen.flatten(), {}, num_experts).cumsum(0).to(at::kInt);
  }

  CasePlace place_;
  const CalibrationShapes& shapes_;
  double seconds_;
};

double sum_of(const LayerTimes& times) {
  double sum = 0;
  for (const PartTimes& part : {times.attention, times.experts, times.shared})
    sum += part.forward + part.backward_input + part.backward_weight;
  return sum;
}

// F, I and W of attention, experts and, where there is one, the shared expert.
double num_passes(const ModelConfig& model) {
  return model.moe->shared_intermediate_size > 0 ? 9 : 6;
}

double measure_layer(c10::Device device, const ModelConfig& config, int64_t tokens,
                     double seconds) {
  const at::ScalarType dtype = device.is_cuda() ? at::kBFloat16 : at::kFloat;
  ModelSettings settings;
  settings.options = at::TensorOptions(device).dtype(dtype);
  settings.stages = {{0, 1, /*has_embedding=*/false, /*has_head=*/false}};
  Model model(config, settings);
  fill_at_random(model, config.initializer_range);
  const MicroBatch micro_batch =
      make_micro_batch(at::zeros({1, tokens}, at::TensorOptions(device).dtype(at::kLong)));
  const at::Tensor hidden = at::randn({tokens, config.hidden_size}, model.options());
  const at::Tensor d_output = at::randn_like(hidden) / static_cast<double>(tokens);
  Chunk& chunk = model.chunks().front();
  const double once = sum_of(measure_layers(chunk, micro_batch, hidden, d_output, 2));
  const auto iterations = std::clamp<int64_t>(static_cast<int64_t>(4 * seconds / once), 3, 50);
  return sum_of(measure_layers(chunk, micro_batch, hidden, d_output, iterations));
}

double planned_layer(const ModelConfig& model, int64_t tokens, Hardware rates) {
  rates.node_rate = 1;  // that of no bytes: nothing travels
  RunSpec spec;
  spec.model = model;
  spec.batch = {.seq_length = tokens, .micro_batch_size = 1};
  return sum_of(layer_times(spec, rates, /*has_experts=*/true));
}

}  // namespace

CalibrationShapes calibration_shapes(int64_t divided_by) {
  CalibrationShapes shapes;
  shapes.tokens = kTokens / divided_by;
  shapes.divided_by = divided_by;
  for (const BenchSlice slice : kModels)
    shapes.models.push_back(
        divided(slice_config(slice, /*num_layers=*/1, shapes.tokens), divided_by));
  return shapes;
}

DeviceRates measure_device(c10::Device device, const CalibrationShapes& shapes, double seconds) {
  DeviceBench bench(device, shapes, seconds);
  DeviceRates rates;
  rates.dtype = bench.dtype();
  log_info("calibrate: dense products");
  bench.heat();
  rates.matrix = bench.dense();
  if (device.is_cpu()) rates.other_matrix_rate = bench.dense_in_bf16();
  log_info("calibrate: experts' grouped products");
  rates.grouped = bench.grouped();
  for (const int64_t head_dim : kHeadDims) {
    log_info(concat("calibrate: attention of heads of ", head_dim));
    rates.attention.push_back(bench.attention(head_dim));
  }
  log_info("calibrate: memory, norms, activations, permutations");
  rates.memory = bench.memory();
  rates.copied = copy_bandwidth(device);
  log_info("calibrate: the optimizer on the host");
  rates.adam = bench.adam();
  if (device.is_cuda()) rates.host_copy = bench.host_copy();
  return rates;
}

LayerCheck check_layers(c10::Device device, const CalibrationShapes& shapes, double seconds,
                        const Hardware& rates) {
  constexpr int64_t kFewTokens = 8, kSmallWidths = 64;
  constexpr double kLeastShare = 0.1;  // of a layer's time, its launches never take the rest
  log_info("calibrate: whole layers");
  LayerCheck check;
  double passes = 0;
  for (const ModelConfig& model : shapes.models) {
    check.measured += measure_layer(device, model, shapes.tokens, seconds);
    check.planned += planned_layer(model, shapes.tokens, rates);
    passes += num_passes(model);
  }
  if (device.is_cpu()) {
    const ModelConfig small = calibration_shapes(kSmallWidths).models.front();
    const double launches = measure_layer(device, small, kFewTokens, seconds);
    check.launch_overhead =
        std::min(launches / num_passes(small), (1 - kLeastShare) * check.measured / passes);
  }
  check.slowdown = (check.measured - passes * check.launch_overhead) / check.planned;
  return check;
}

}  // namespace moetron
