#include "moetron/bench/bench_step.h"

#include <chrono>
#include <thread>

#include <ATen/ATen.h>

#include "moetron/base/file.h"
#include "moetron/bench/bench_slice.h"
#include "moetron/bench/bench_timer.h"
#include "moetron/bench/gpu_sensors.h"
#include "moetron/comm/thread_communicator.h"
#include "moetron/measure/device_memory.h"
#include "moetron/models/model.h"
#include "moetron/nn/loss.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/grad_norm.h"
#include "moetron/parallel/gradient_buckets.h"
#include "moetron/parallel/mesh.h"
#include "moetron/pipeline/block.h"
#include "moetron/run/resolve.h"
#include "moetron/train/batches.h"
#include "moetron/train/run_settings.h"

namespace moetron {
namespace {

constexpr double kLearningRate = 1e-5;

// As the runs that are measured have it: all experts in one product, and both of latent attention's
// down projections. The norms around these are recomputed where mla-fuse-qkv says so.
ModelSettings with_joint_products(ModelSettings settings) {
  settings.experts.grouped_gemm = true;
  settings.latent_attention.fuse_down = true;
  return settings;
}

// Random tokens, each labelled with the one that follows it.
StepBatch random_batch(int64_t vocab_size, int64_t batch, int64_t seq, c10::Device device) {
  const at::Tensor tokens =
      at::randint(vocab_size, {batch, seq}, at::TensorOptions(device).dtype(at::kLong));
  const at::Tensor labels = at::full_like(tokens, kIgnoredLabel);
  labels.narrow(1, 0, seq - 1).copy_(tokens.narrow(1, 1, seq - 1));
  MicroBatch micro_batch = make_micro_batch(tokens, labels);
  micro_batch.training = true;
  StepBatch step;
  step.divisor = static_cast<double>(batch * (seq - 1));
  step.num_tokens = batch * seq;
  micro_batch.d_loss = step.d_loss();
  micro_batch.d_aux = step.d_aux();
  step.micro_batches.push_back(std::move(micro_batch));
  return step;
}

class StepBench {
 public:
  StepBench(const ModelConfig& config, const Options& options, c10::Device device)
      : options_(options),
        device_(device),
        world_(join_thread_world(make_thread_world(1, std::chrono::minutes(1)), 0)),
        mesh_(*world_, ParallelSizes{}),
        model_(config,
               with_joint_products(model_settings(resolve_slice(options_, config), mesh_, device))),
        buckets_(model_.parameters(), mesh_, {}) {
    at::manual_seed(static_cast<uint64_t>(options_.runtime.seed));
    fill_at_random(model_, config.initializer_range);
    const TrainingOptions& training = options_.training;
    batch_ =
        random_batch(config.vocab_size, training.micro_batch_size, training.seq_length, device);
  }

  StepReport run() {
    const std::string& trace = options_.report.trace;
    if (!trace.empty()) write_file(trace, "");  // finds a bad path before the work, not after it
    StepReport report;
    report.device = device_.str();
    report.dtype = model_.options().dtype() == at::kFloat ? "fp32" : "bf16";
    if (resolve_slice(options_, model_.config()).fp8) report.dtype += ", products in fp8";
    report.num_layers = model_.config().num_layers;
    report.num_parameters = num_parameters();
    report.micro_batch_size = options_.training.micro_batch_size;
    report.seq_length = options_.training.seq_length;
    report.flops = slice_flops(model_.config(), batch_.num_tokens, report.seq_length);
    report.micro_batch = measure_micro_batches();
    if (options_.bench.with_optimizer) report.optimizer = measure_optimizer();
    const auto work = [this] {
      step();
      synchronize(device_);
    };
    if (device_.is_cuda()) report.kernels = profile_kernels(work, device_);
    if (!trace.empty()) trace_work(work, device_, trace);
    return report;
  }

 private:
  struct Optimizer {
    GradNormMeter norm;
    AdamW adamw;
    int64_t num_steps = 0;
  };

  int64_t num_parameters() const {
    int64_t count = 0;
    for (const OwnedStretch& stretch : buckets_.owned()) count += stretch.value.numel();
    return count;
  }

  at::Tensor micro_batch() {
    ChunkRun run(model_.chunks().front(), batch_.micro_batches.front());
    forward_chunk(run, {});
    backward_chunk(run, {});
    return run.label_loss();
  }

  at::Tensor first_micro_batch() {
    buckets_.clear();
    return micro_batch();
  }

  void update(double grad_scale) {
    optimizer_->adamw.step(kLearningRate, ++optimizer_->num_steps, grad_scale);
  }

  // A first micro-batch, with the optimizer behind it where there is one.
  void step() {
    first_micro_batch();
    if (!optimizer_) return;
    buckets_.reduce();  // zeroes what nothing was added to
    const double norm = optimizer_->norm.measure().norm;
    update(clip_coefficient(norm, options_.optimizer.clip_grad));
  }

  // Calls `iteration` as often as asked for, and tells it where to leave each time. Peak memory is
  // counted from the end of the warm-up.
  template <class Iteration>
  void repeat(const Iteration& iteration) {
    for (int64_t i = 0; i < options_.bench.warmup + options_.bench.iterations; ++i) {
      if (i == options_.bench.warmup) reset_peak_memory(device_);
      iteration(/*counts=*/i >= options_.bench.warmup);
    }
  }

  void rest() const {
    std::this_thread::sleep_for(std::chrono::duration<double>(options_.bench.rest));
  }

  MicroBatchSpeed measure_micro_batches() {
    std::vector<double> first, next;
    at::Tensor loss;
    const std::optional<GpuSensors> sensors = GpuSensors::open(device_);
    double joules = 0, passed_ms = 0;
    repeat([&](bool counts) {
      if (sensors && counts && first.empty()) joules = sensors->joules();
      rest();
      const double first_ms = measure_ms(device_, [&] { first_micro_batch(); });
      rest();
      const double next_ms = measure_ms(device_, [&] { loss = micro_batch(); });
      if (!counts) return;
      first.push_back(first_ms);
      next.push_back(next_ms);
      passed_ms += first_ms + next_ms;
    });
    std::optional<GpuPower> power;
    if (sensors && options_.bench.rest == 0) {  // else the rests would count
      power = {.watts = (sensors->joules() - joules) / (passed_ms * 1e-3),
               .limit = sensors->power_limit(),
               .megahertz = sensors->megahertz()};
    }
    return {.first_ms = median(std::move(first)),
            .next_ms = median(std::move(next)),
            .peak_bytes = peak_memory_bytes(device_),
            .loss = loss.item<double>() * batch_.d_loss(),
            .power = power};
  }

  OptimizerSpeed measure_optimizer() {
    optimizer_.emplace(Optimizer{GradNormMeter(buckets_.owned(), mesh_, /*distributed=*/false),
                                 AdamW(buckets_.owned(), {})});
    std::vector<double> whole, norm, updates;
    repeat([&](bool counts) {
      const double whole_ms = measure_ms(device_, [&] { step(); });
      const double norm_ms = measure_ms(device_, [&] { optimizer_->norm.measure(); });
      const double update_ms = measure_ms(device_, [&] { update(1); });
      if (!counts) return;
      whole.push_back(whole_ms);
      norm.push_back(norm_ms);
      updates.push_back(update_ms);
    });
    const int64_t peak_bytes = peak_memory_bytes(device_);
    // Of an element: the gradient, the moments and the value or its master read, all but the
    // gradient written; then the value itself where it has a master.
    const double update_bytes = model_.options().dtype() == at::kFloat ? 28 : 30;
    const auto count = static_cast<double>(num_parameters());
    return {
        .step_ms = median(std::move(whole)),
        .norm_ms = median(std::move(norm)),
        .update_ms = median(std::move(updates)),
        .norm_bytes = 4 * count,
        .update_bytes = update_bytes * count,
        .copy_bandwidth = device_.is_cuda() ? std::optional(copy_bandwidth(device_)) : std::nullopt,
        .peak_bytes = peak_bytes};
  }

  Options options_;
  c10::Device device_;
  std::unique_ptr<Communicator> world_;
  Mesh mesh_;
  Model model_;
  GradientBuckets buckets_;
  StepBatch batch_;
  std::optional<Optimizer> optimizer_;
};

}  // namespace

StepReport measure_step(const ModelConfig& config, const Options& options, c10::Device device) {
  return StepBench(config, options, device).run();
}

}  // namespace moetron
