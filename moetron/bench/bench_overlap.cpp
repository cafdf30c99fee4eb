#include "moetron/bench/bench_overlap.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/units.h"
#include "moetron/bench/bench_slice.h"
#include "moetron/bench/bench_timer.h"
#include "moetron/bench/host_link.h"
#include "moetron/bench/layer_parts.h"
#include "moetron/models/model.h"
#include "moetron/pipeline/block.h"
#include "moetron/plan/dispatch_time.h"
#include "moetron/plan/step_program.h"

namespace moetron {
namespace {

constexpr int64_t kGpusPerNode = 8;

// Dispatch, combine and their backwards.
int64_t num_transfers(int64_t num_layers) {
  return 4 * num_layers;
}

// An inner stage of a pipeline: layers without embedding and head, which hide nothing.
ModelSettings inner_stage(int64_t num_layers, c10::Device device) {
  ModelSettings settings;
  settings.options = at::TensorOptions(device).dtype(at::kBFloat16);
  settings.stages = {{0, num_layers, /*has_embedding=*/false, /*has_head=*/false}};
  return settings;
}

class OverlapBench {
 public:
  OverlapBench(const ModelConfig& slice, const Options& options, c10::Device device)
      : device_(device),
        bench_(options.bench),
        num_layers_(slice.num_layers),
        model_(slice, inner_stage(slice.num_layers, device)),
        link_(device) {
    at::manual_seed(static_cast<uint64_t>(options.runtime.seed));
    fill_at_random(model_, slice.initializer_range);
    const int64_t batch = options.training.micro_batch_size, seq = options.training.seq_length;
    // The tokens' number alone counts.
    micro_batch_ =
        make_micro_batch(at::zeros({batch, seq}, at::TensorOptions(device).dtype(at::kLong)));
    hidden_ = at::randn({batch * seq, slice.hidden_size}, model_.options());
    d_output_ = at::randn_like(hidden_) / static_cast<double>(batch * seq);
    for (auto& layer : chunk().layers) layer = put_on_link(std::move(layer), link_);
  }

  // Without a transfer in its way.
  LayerTimes measure_parts() {
    link_.set_bytes(0);
    return measure_layers(chunk(), micro_batch_, hidden_, d_output_, bench_.iterations);
  }

  double measure_compute() {
    link_.set_bytes(0);
    return measure_plain();
  }

  OverlapTimes measure_exchange(int64_t bytes, double compute) {
    link_.set_bytes(bytes);
    const double communication = measure_seconds([&] {
      for (int64_t i = 0; i < num_transfers(num_layers_); ++i) link_.start()();
    });
    const double plain = measure_plain();
    return {compute, communication, plain, measure_block()};
  }

 private:
  Chunk& chunk() { return model_.chunks().front(); }

  double measure_seconds(const std::function<void()>& work,
                         const std::function<void()>& prepare = {}) {
    return median_seconds(bench_, device_, work, prepare);
  }

  double measure_plain() {
    return measure_seconds([&] {
      ChunkRun run(chunk(), micro_batch_);
      forward_chunk(run, {{.data = hidden_}});
      backward_chunk(run, {d_output_});
    });
  }

  // F of one micro-batch beside B of the one before it.
  double measure_block() {
    std::optional<ChunkRun> before;
    return measure_seconds(
        [&] {
          ChunkRun run(chunk(), micro_batch_);
          run.begin_forward({{.data = hidden_}}, {});
          before->begin_backward({d_output_}, {});
          run_instructions(
              block_instructions(run.program(), before->program(), /*with_weights=*/true),
              {.forward = &run,
               .backward = &*before,
               .on_outputs = [](const std::vector<Value>&) {},
               .on_d_inputs = [](const std::vector<at::Tensor>&) {}});
        },
        [&] { forward_chunk(before.emplace(chunk(), micro_batch_), {{.data = hidden_}}); });
  }

  c10::Device device_;
  BenchOptions bench_;
  int64_t num_layers_;
  Model model_;
  HostLink link_;
  MicroBatch micro_batch_;
  at::Tensor hidden_, d_output_;  // [tokens, hidden]
};

std::string describe_part(const char* name, const PartTimes& part) {
  return formatted("  %s %.3f + %.3f + %.3f", name, part.forward / kMilli,
                   part.backward_input / kMilli, part.backward_weight / kMilli);
}

std::string describe(const OverlapTimes& measured, const OverlapTimes& planned, int64_t bytes,
                     int64_t transfers) {
  const auto row = [](const char* what, double seconds, double planned_seconds) {
    return formatted("  %-36s %9.2f ms, planned %9.2f ms\n", what, seconds / kMilli,
                     planned_seconds / kMilli);
  };
  const double transfer = measured.communication / static_cast<double>(transfers);
  std::string text =
      formatted("  %lld transfers alone: %.2f ms each, %.1f GB/s each way, %.2f ms\n",
                static_cast<long long>(transfers), transfer / kMilli,
                static_cast<double>(bytes) / transfer / kGiga, measured.communication / kMilli);
  text += row("F, then B, without communication", measured.compute, planned.compute);
  text += row("F, then B, with communication", measured.plain, planned.plain);
  text += row("block of F and B, with communication", measured.block, planned.block);
  const auto hidden = [](const char* whose, const OverlapTimes& times) {
    return formatted(
        "  hidden, %s: %.1f %% by F, then B; %.1f %% by the block, of at most %.1f %%\n", whose,
        100 * times.hidden(times.plain), 100 * times.hidden(times.block),
        100 * times.most_hidden());
  };
  text += hidden("measured", measured) + hidden("planned", planned);
  return text + formatted("  the block is %.3f times as fast, planned %.3f\n", measured.speed_up(),
                          planned.speed_up());
}

}  // namespace

int64_t exchange_bytes(const ModelConfig& slice, int64_t tokens, int64_t ep,
                       DispatchScheme scheme) {
  RunSpec spec;
  spec.model = slice;
  spec.model.moe->num_experts *= ep;
  spec.sizes.world = spec.sizes.dp = spec.sizes.ep = ep;
  spec.batch.seq_length = tokens;
  spec.batch.micro_batch_size = 1;
  spec.experts.scheme = scheme;
  const int64_t gpus_per_node = scheme == DispatchScheme::kPerNode ? kGpusPerNode : 1;
  return std::llround(dispatch_volume(spec, gpus_per_node).network);
}

double OverlapTimes::most_hidden() const {
  return std::min(1.0, compute / communication);
}

OverlapTimes planned_times(const LayerTimes& layer, int64_t num_layers) {
  ChunkTimes chunk;
  chunk.layers.assign(static_cast<size_t>(num_layers), layer);
  const ProgramSettings settings;  // copy engines leave compute its whole rate
  const Action forward{.kind = ActionKind::kForward}, backward{.kind = ActionKind::kBackward};
  const auto seconds = [&](const Step& step) {
    return step_cost(step, chunk, chunk, settings).duration;
  };
  const auto in_a_row = [&] { return seconds({forward, {}}) + seconds({backward, {}}); };
  OverlapTimes times;
  times.communication = layer.dispatch * static_cast<double>(num_transfers(num_layers));
  times.plain = in_a_row();
  times.block = seconds({forward, backward});
  for (LayerTimes& each : chunk.layers) each.dispatch = 0;
  times.compute = in_a_row();
  return times;
}

std::string bench_overlap(const ModelConfig& slice, const std::string& name, const Options& options,
                          c10::Device device) {
  MT_CHECK_CONFIG(device.is_cuda(), "bench overlap needs a GPU, whose copy engines stand for a ",
                  "network: device (", device, ") must be cuda");
  const int64_t ep = options.bench.ep;
  const int64_t tokens = options.training.micro_batch_size * options.training.seq_length;
  OverlapBench bench(slice, options, device);
  const LayerTimes parts = bench.measure_parts();
  const double compute = bench.measure_compute();
  std::string text = formatted(
      "%s, %lld layers, %lld x %lld tokens, EP %lld of %lld experts; copies through pinned host\n"
      "memory stand for the network, and use no multiprocessor\n  a layer's F + I + W in ms:",
      name.c_str(), static_cast<long long>(slice.num_layers),
      static_cast<long long>(options.training.micro_batch_size),
      static_cast<long long>(options.training.seq_length), static_cast<long long>(ep),
      static_cast<long long>(ep * slice.moe->num_experts));
  text += describe_part("attention", parts.attention) + describe_part("experts", parts.experts) +
          describe_part("shared expert", parts.shared);
  text += "\n";
  const double row_bytes = 2.0 * static_cast<double>(tokens * slice.hidden_size);
  for (const auto& [scheme, what] :
       {std::pair(DispatchScheme::kPerRank, "a copy for each rank with a chosen expert"),
        std::pair(DispatchScheme::kPerNode,
                  "a copy for each such node of 8 GPUs, what travels within nodes left out")}) {
    const int64_t bytes = exchange_bytes(slice, tokens, ep, scheme);
    if (bytes == 0) continue;
    text +=
        formatted("\n%.1f MB each way, %.2f copies of a token over the network: %s\n",
                  static_cast<double>(bytes) / kMega, static_cast<double>(bytes) / row_bytes, what);
    const OverlapTimes measured = bench.measure_exchange(bytes, compute);
    LayerTimes layer = parts;
    layer.dispatch = measured.communication / static_cast<double>(num_transfers(slice.num_layers));
    text += describe(measured, planned_times(layer, slice.num_layers), bytes,
                     num_transfers(slice.num_layers));
  }
  return text;
}

}  // namespace moetron
