#include "moetron/bench/divided_layers.h"

#include <algorithm>
#include <functional>
#include <memory>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/mistakes.h"
#include "moetron/bench/bench_slice.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"
#include "moetron/pipeline/block.h"
#include "moetron/plan/step_program.h"
#include "moetron/run/division.h"

namespace moetron {
namespace {

// In a row: what one of them launches late, or leaves on its way, the next one meets.
constexpr int64_t kLayersInARow = 2;
constexpr int64_t kExpertsOfARank = 16;
constexpr Looks kCpuLooks{.first = 0, .counted = 3};
constexpr Looks kGpuLooks{.first = 2, .counted = 6, .least_runs = 4};

// A micro-batch through the layers: what is measured, and what is planned.
RunSpec layers_run(const CalibrationShapes& shapes) {
  RunSpec spec;
  spec.model = shapes.models.front();
  spec.model.num_layers = kLayersInARow;
  spec.model.moe->num_experts = kExpertsOfARank;
  spec.experts.force_balance = true;  // the plan counts evenly routed tokens
  spec.batch = {.seq_length = shapes.tokens, .micro_batch_size = 1};
  return spec;
}

RunSpec dispatched_run(TokenDispatcher dispatcher, int num_ranks, const CalibrationShapes& shapes) {
  RunSpec spec = layers_run(shapes);
  spec.model.moe->num_experts *= num_ranks;
  spec.sizes = parallel_sizes(num_ranks, /*tp=*/1, /*pp=*/1, /*ep=*/num_ranks, /*tpe=*/1);
  spec.experts.dispatcher = dispatcher;
  spec.experts.scheme = scheme_of(dispatcher);
  return spec;
}

RunSpec tensor_run(int num_ranks, const CalibrationShapes& shapes) {
  RunSpec spec = layers_run(shapes);
  spec.sizes = parallel_sizes(num_ranks, /*tp=*/num_ranks, /*pp=*/1, /*ep=*/1, /*tpe=*/1);
  return spec;
}

bool can_divide(const RunSpec& spec) {
  Mistakes mistakes;
  check_division(divided_widths(spec.model, /*mla_replicate_l1=*/false), spec.sizes, mistakes);
  return mistakes.count() == 0;
}

// Forward and backward, as a schedule without blocks runs them.
double planned(const RunSpec& spec, const Hardware& rates) {
  ChunkTimes chunk;
  chunk.layers.assign(static_cast<size_t>(spec.model.num_layers),
                      layer_times(spec, rates, /*has_experts=*/true));
  const ProgramSettings settings{.compute_rate =
                                     1 - rates.dispatch_multiprocessors / rates.multiprocessors};
  const Action forward{.kind = ActionKind::kForward}, backward{.kind = ActionKind::kBackward};
  return step_cost({forward, {}}, chunk, chunk, settings).duration +
         step_cost({backward, {}}, chunk, chunk, settings).duration;
}

// The x >= 0 of which `seconds_with` says `seconds`; 0 where it says more of 0 already. It must
// rise by x at least.
double overhead_where(const std::function<double(double)>& seconds_with, double seconds) {
  constexpr int kHalvings = 50;
  double low = 0, high = std::max(0.0, seconds - seconds_with(0));
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (seconds_with(middle) < seconds ? low : high) = middle;
  }
  return high;
}

class LayersBench {
 public:
  LayersBench(Communicator& world, c10::Device device, double seconds)
      : world_(world), device_(device), seconds_(seconds) {}

  // A null mesh: the rank has all of it.
  SteadyTime measure(const RunSpec& spec, Mesh* mesh) {
    ModelSettings settings;
    settings.options =
        at::TensorOptions(device_).dtype(device_.is_cuda() ? at::kBFloat16 : at::kFloat);
    settings.mesh = mesh;
    settings.experts = spec.experts;
    settings.stages = {{0, spec.model.num_layers, /*has_embedding=*/false, /*has_head=*/false}};
    Model model(spec.model, settings);
    fill_at_random(model, spec.model.initializer_range);
    const at::Tensor tokens =
        at::zeros({1, spec.batch.tokens()}, at::TensorOptions(device_).dtype(at::kLong));
    MicroBatch micro_batch = make_micro_batch(tokens, /*labels=*/{}, settings.tensor_group());
    micro_batch.training = true;
    const at::Tensor hidden =
        at::randn({micro_batch.layout.slice_size(), spec.model.hidden_size}, model.options());
    const at::Tensor d_output = at::randn_like(hidden) / spec.tokens();
    Chunk& chunk = model.chunks().front();
    const Looks& looks = device_.is_cuda() ? kGpuLooks : kCpuLooks;
    const auto micro_batch_through = [&] {
      ChunkRun run(chunk, micro_batch);
      forward_chunk(run, {{.data = hidden}});
      backward_chunk(run, {d_output});
    };
    return time_together(world_, device_, seconds_, micro_batch_through, looks);
  }

 private:
  Communicator& world_;
  c10::Device device_;
  double seconds_;
};

}  // namespace

DividedLayers measure_divided_layers(Communicator& world, c10::Device device,
                                     const NodePlace& place, const CalibrationShapes& shapes,
                                     double seconds) {
  MT_CHECK(world.size() > 1, "a rank alone divides nothing");
  LayersBench bench(world, device, seconds);
  // Ranks of a machine follow each other.
  const bool within = place.local_size > 1;
  const auto ranks =
      world.split(within ? world.rank() - place.local_rank : 0, world.rank(), "calibrate, layers");
  DividedLayers found;
  found.num_ranks = ranks->size();
  log_info("calibrate: layers of a rank's own");
  found.whole = bench.measure(layers_run(shapes), nullptr);
  const auto run_of = [&](TokenDispatcher dispatcher) {
    return dispatched_run(dispatcher, found.num_ranks, shapes);
  };
  {
    Mesh mesh(*ranks, run_of(kPlainDispatchers[0]).sizes);
    for (size_t i = 0; i < found.dispatched.size(); ++i) {
      log_info(concat("calibrate: layers whose experts ranks divide, ",
                      dispatcher_name(kPlainDispatchers[i])));
      found.dispatched.at(i) = bench.measure(run_of(kPlainDispatchers[i]), &mesh);
    }
  }
  const RunSpec divided = tensor_run(found.num_ranks, shapes);
  if (!within || !can_divide(divided)) return found;
  log_info("calibrate: layers that tensor-parallel ranks divide");
  Mesh mesh(*ranks, divided.sizes, head_copies(divided.sizes, divided.model));
  found.tensor = bench.measure(divided, &mesh);
  return found;
}

double planned_whole(const CalibrationShapes& shapes, const Hardware& rates) {
  return planned(layers_run(shapes), rates);
}

double planned_dispatched(TokenDispatcher dispatcher, int num_ranks,
                          const CalibrationShapes& shapes, const Hardware& rates) {
  return planned(dispatched_run(dispatcher, num_ranks, shapes), rates);
}

double planned_tensor(int num_ranks, const CalibrationShapes& shapes, const Hardware& rates) {
  return planned(tensor_run(num_ranks, shapes), rates);
}

Hardware with_compute_of(double whole, const CalibrationShapes& shapes, Hardware rates) {
  const double factor = whole / planned_whole(shapes, rates);
  rates.compute_slowdown *= factor;
  rates.launch_overhead *= factor;
  return rates;
}

double dispatch_overhead_of(double seconds, TokenDispatcher dispatcher, int num_ranks,
                            const CalibrationShapes& shapes, const Hardware& rates) {
  const auto seconds_with = [&](double overhead) {
    Hardware with = rates;
    with.dispatch_overheads[dispatcher] = overhead;
    return planned_dispatched(dispatcher, num_ranks, shapes, with);
  };
  return overhead_where(seconds_with, seconds);
}

double tensor_overhead_of(double seconds, int num_ranks, const CalibrationShapes& shapes,
                          const Hardware& rates) {
  const auto seconds_with = [&](double overhead) {
    Hardware with = rates;
    with.tensor_overhead = overhead;
    return planned_tensor(num_ranks, shapes, with);
  };
  return overhead_where(seconds_with, seconds);
}

}  // namespace moetron
