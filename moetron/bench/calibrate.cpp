#include "moetron/bench/calibrate.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include <ATen/Parallel.h>

#include "moetron/base/build.h"
#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/units.h"
#include "moetron/bench/device_facts.h"
#include "moetron/bench/device_rates.h"
#include "moetron/bench/divided_layers.h"

namespace moetron {
namespace {

constexpr int64_t kDividedOnCpus = 8;
// Least and most of the multiprocessors that communication may be said to take.
constexpr double kLeastTaken = 1e-3, kMostTaken = 0.95;

// What is written is no more exact than what is measured.
double rounded(double value) {
  return std::stod(formatted("%.4g", value));
}

std::string percent(double share) {
  return formatted(share < 0.1 ? "%.1f %%" : "%.0f %%", 100 * share);
}

class Calibrator {
 public:
  Calibrator(Communicator& world, c10::Device device, const CalibrationSettings& settings)
      : world_(world),
        device_(device),
        settings_(settings),
        facts_(device_facts(device)),
        shapes_(calibration_shapes(device.is_cuda()          ? 1
                                   : settings.divided_by > 0 ? settings.divided_by
                                                             : kDividedOnCpus)) {}

  Calibration run() {
    set_name();
    set_device_rates();
    set_memory();
    hardware().system = concat("Moetron on ", hardware().name, ", calibrated ", settings_.date);
    // What a layer is planned with before these two are known.
    hardware().compute_slowdown = 1;
    hardware().launch_overhead = 0;
    set_layers();
    if (world_.size() > 1) {
      set_links();
    } else {
      set_links_of_one();
    }
    return result_;
  }

 private:
  Hardware& hardware() { return result_.hardware; }

  void set(double& field, const std::string& key, double value, const std::string& note) {
    field = value;
    result_.notes[key] = note;
  }
  void set(double& field, const std::string& key, const MeasuredRate& measured,
           const std::string& what) {
    const std::string range =
        measured.num_cases > 1
            ? concat(measured.num_cases, " ", what, ": ", formatted("%.3g", measured.least), " to ",
                     formatted("%.3g", measured.most), ", all together")
            : what;
    set(field, key, rounded(measured.rate),
        concat("measured: ", range, "; repetitions within ", percent(measured.spread)));
  }

  double smallest(double value) { return -largest(world_, device_, -value); }

  // The slowest rank's.
  MeasuredRate agreed(const MeasuredRate& mine) {
    return {smallest(mine.rate), smallest(mine.least), largest(world_, device_, mine.most),
            largest(world_, device_, mine.spread), mine.num_cases};
  }

  std::string ranks_text() const {
    return world_.size() == 1 ? "one process" : concat(world_.size(), " ranks at once");
  }

  std::string from_base(const std::string& why) const {
    return concat("not measured (", why, "): as of ", settings_.base.name, ", ",
                  settings_.base_name);
  }

  void set_name() {
    const int ranks = world_.size();
    hardware().name = !settings_.name.empty() ? settings_.name
                      : ranks == 1            ? facts_.name
                                              : concat(ranks, " x ", facts_.name);
    result_.notes[""] =
        concat("Measured by `", settings_.command, "` on ", facts_.name, ", ", ranks_text(), ", ",
               settings_.date, ", moetron ", build_identity(), ". Each operation was repeated for ",
               formatted("%.3g", settings_.seconds),
               " s, of which the second half counts: medians, of all sizes together the work over "
               "the time, of several ranks the slowest. Bytes and FLOPs a second unless said.");
  }

  void set_device_rates() {
    const DeviceRates mine = measure_device(device_, shapes_, settings_.seconds);
    copied_ = smallest(mine.copied);
    const bool is_gpu = device_.is_cuda();
    const std::string dtype = mine.dtype == at::kBFloat16 ? "bf16" : "fp32";
    const std::string sizes =
        concat("of Qwen3-235B's and DeepSeek-V3's layers",
               is_gpu ? "" : concat(" (widths and heads over ", shapes_.divided_by, ")"), ", ",
               shapes_.tokens, " tokens, ", dtype);
    std::string dense = concat("dense products ", sizes);
    if (!is_gpu) {
      const double in_bf16 = smallest(mine.other_matrix_rate);
      dense += concat(", as runs have it on a CPU by default (the first of them in bf16: ",
                      formatted("%.3g", in_bf16), ")");
    }
    set(hardware().matrix_rate, "gpu.matrix_rate", agreed(mine.matrix), dense);
    set(hardware().grouped_rate, "gpu.grouped_rate", agreed(mine.grouped),
        concat("products of 16 experts together ", sizes));
    set(hardware().memory_rate, "gpu.memory_rate", agreed(mine.memory),
        concat("norms, activations and moves of rows ", sizes,
               ", each input and output counted once; a large copy reaches ",
               formatted("%.3g", copied_)));
    for (const DeviceRates::Attention& one : mine.attention) {
      AttentionRate& rate = hardware().attention.emplace_back();
      rate.head_dim = one.head_dim;
      const std::string what = concat("causal, one sequence of ", shapes_.tokens, ", ", dtype,
                                      one.head_dim == 192 ? ", values of 128" : "");
      set(rate.forward, attention_note(one.head_dim, "forward"), agreed(one.forward), what);
      set(rate.backward, attention_note(one.head_dim, "backward"), agreed(one.backward), what);
    }
    std::string adam =
        concat("parameters a second of AdamW on the host by ", at::get_num_threads(),
               at::get_num_threads() == 1 ? " thread" : " threads", " a rank, with a bf16 copy");
    if (is_gpu) {
      adam += concat("; copies between device and pinned host memory, both ways at once, reach ",
                     formatted("%.3g", smallest(mine.host_copy)), " each way");
    }
    set(hardware().adam_rate, "host.adam_rate", agreed(mine.adam), adam);
  }

  void set_memory() {
    const bool is_gpu = device_.is_cuda();
    set(hardware().host_memory, "host.memory", std::floor(settings_.host_memory),
        "bytes of this machine that processes may have, as the system tells");
    const double share = settings_.host_memory / settings_.place.local_size;
    set(hardware().memory, "gpu.memory", is_gpu ? facts_.memory : std::floor(share),
        is_gpu ? concat("bytes that CUDA shows: ", formatted("%.4g", facts_.memory / kGibi), " GiB")
               : concat("bytes: a rank's share of the host's, of ", settings_.place.local_size));
    set(hardware().multiprocessors, "gpu.multiprocessors", facts_.multiprocessors,
        is_gpu ? "as CUDA tells" : "compute threads of a rank");
  }

  void set_layers() {
    const LayerCheck mine = check_layers(device_, shapes_, settings_.seconds, hardware());
    const double slowdown = largest(world_, device_, mine.slowdown);
    const double overhead = largest(world_, device_, mine.launch_overhead);
    set(hardware().compute_slowdown, "system.compute_slowdown", rounded(slowdown),
        concat("measured: a layer of each of both models, forward and backward, takes ",
               formatted("%.4g", mine.measured / kMilli), " ms, by the rates above ",
               formatted("%.4g", mine.planned / kMilli), " ms"));
    set(hardware().launch_overhead, "system.launch_overhead", rounded(overhead),
        device_.is_cuda() ? "seconds; not measured: kernels are launched ahead of the GPU"
                          : "seconds, measured: a layer of 8 tokens, 64 wide, over its passes");
  }

  void set_links() {
    const LinkRates links =
        measure_links(world_, device_, settings_.place, shapes_, settings_.seconds);
    hardware().gpus_per_node = settings_.place.local_size;
    result_.notes["links.gpus_per_node"] = "ranks on this machine when it was measured";
    const auto all_to_all = [](const LinkRates::Link& link, const std::string& where) {
      return concat("measured: an all-to-all of ", link.num_ranks, " ranks ", where, ", ",
                    formatted("%.3g", static_cast<double>(link.bytes) / kMega),
                    " MB to the others; repetitions within ", percent(link.spread));
    };
    if (links.node) {
      set(hardware().node_rate, "links.node_rate", rounded(links.node->rate),
          all_to_all(*links.node, "of a machine"));
    } else {
      set(hardware().node_rate, "links.node_rate", settings_.base.node_rate,
          from_base("one rank on each machine"));
    }
    if (links.network) {
      set(hardware().network_rate, "links.network_rate", rounded(links.network->rate),
          all_to_all(*links.network, "of as many machines, all ranks of these at once"));
    } else {
      set_network_of_one_machine();
    }
    set(hardware().message_latency, "links.message_latency", rounded(links.latency),
        concat("seconds, measured: half of an empty message's way there and back, first rank to "
               "last; repetitions within ",
               percent(links.latency_spread)));
    const double taken = std::clamp(1 - links.rate_beside, kLeastTaken, kMostTaken);
    set(hardware().dispatch_multiprocessors, "system.dispatch_multiprocessors",
        rounded(taken * facts_.multiprocessors),
        concat("measured: beside all-to-alls a product reaches ", percent(links.rate_beside),
               " of its rate"));
    set_overheads();
  }

  // What layers that ranks divide take beside compute, as measured of a rank's own, and bytes.
  void set_overheads() {
    const DividedLayers layers =
        measure_divided_layers(world_, device_, settings_.place, shapes_, settings_.seconds);
    hardware().dispatch_overhead = hardware().tensor_overhead = 0;
    const Hardware rates = with_compute_of(layers.whole.seconds, shapes_, hardware());
    for (size_t i = 0; i < layers.dispatched.size(); ++i)
      set_dispatch_overhead(kPlainDispatchers[i], layers.dispatched.at(i), layers, rates);
    set(hardware().dispatch_overhead, "system.dispatch_overhead",
        hardware().dispatch_overheads.at(TokenDispatcher::kDeepep),
        "seconds, measured: as of deepep, below; of other ways to travel (--dispatch-scheme)");
    if (layers.tensor) {
      set_tensor_overhead(*layers.tensor, layers, rates);
    } else {
      set_tensor_overhead_of_base(settings_.place.local_size > 1
                                      ? concat(layers.num_ranks, " ranks cannot divide a layer")
                                      : "one rank on each machine");
    }
  }

  void set_dispatch_overhead(TokenDispatcher dispatcher, const SteadyTime& time,
                             const DividedLayers& layers, const Hardware& rates) {
    const int ranks = layers.num_ranks;
    const double overhead = dispatch_overhead_of(time.seconds, dispatcher, ranks, shapes_, rates);
    const double planned = planned_dispatched(dispatcher, ranks, shapes_, rates);
    set(hardware().dispatch_overheads[dispatcher], dispatch_note(dispatcher), rounded(overhead),
        concat("seconds, measured: two layers whose experts ", ranks, " ranks divide take ",
               milliseconds(time), ", of a rank's own ", milliseconds(layers.whole),
               ", with their bytes ", milliseconds(planned),
               "; what the plan then lacks for each dispatch and combine"));
  }

  void set_tensor_overhead(const SteadyTime& time, const DividedLayers& layers,
                           const Hardware& rates) {
    const int ranks = layers.num_ranks;
    const double planned = planned_tensor(ranks, shapes_, rates);
    set(hardware().tensor_overhead, "system.tensor_overhead",
        rounded(tensor_overhead_of(time.seconds, ranks, shapes_, rates)),
        concat("seconds, measured: two layers that ", ranks, " tensor-parallel ranks divide take ",
               milliseconds(time), ", by their share of those of a rank's own, ",
               milliseconds(layers.whole), ", and their bytes ", milliseconds(planned),
               "; what the plan then lacks for each gather and scatter"));
  }

  void set_tensor_overhead_of_base(const std::string& why) {
    set(hardware().tensor_overhead, "system.tensor_overhead", settings_.base.tensor_overhead,
        "seconds; " + from_base(why));
  }

  static std::string milliseconds(double seconds) { return formatted("%.4g ms", seconds / kMilli); }
  static std::string milliseconds(const SteadyTime& time) {
    return concat(milliseconds(time.seconds), " (repetitions within ", percent(time.spread), ")");
  }

  void set_network_of_one_machine() {
    if (device_.is_cpu()) {
      set(hardware().network_rate, "links.network_rate", hardware().node_rate,
          "not measured (one machine): as within it");
      return;
    }
    set(hardware().network_rate, "links.network_rate", settings_.base.network_rate,
        from_base("one machine"));
  }

  void set_links_of_one() {
    const std::string why = from_base("one process");
    const Hardware& base = settings_.base;
    if (device_.is_cuda()) {
      hardware().gpus_per_node = base.gpus_per_node;
      result_.notes["links.gpus_per_node"] = why;
      set(hardware().node_rate, "links.node_rate", base.node_rate, why);
      set(hardware().network_rate, "links.network_rate", base.network_rate, why);
    } else {
      hardware().gpus_per_node = std::max<int64_t>(1, at::get_num_threads());
      result_.notes["links.gpus_per_node"] = "a rank for each compute thread";
      const std::string copy =
          "not measured (one process): a copy within memory, read or written, stands for it";
      set(hardware().node_rate, "links.node_rate", rounded(copied_ / 2), copy);
      set(hardware().network_rate, "links.network_rate", rounded(copied_ / 2), copy);
    }
    set(hardware().message_latency, "links.message_latency", base.message_latency,
        "seconds; " + why);
    set(hardware().dispatch_overhead, "system.dispatch_overhead", base.dispatch_overhead,
        "seconds; " + why);
    set_tensor_overhead_of_base("one process");
    for (const auto& [dispatcher, seconds] : base.dispatch_overheads)
      set(hardware().dispatch_overheads[dispatcher], dispatch_note(dispatcher), seconds,
          "seconds; " + why);
    const double share = base.dispatch_multiprocessors / base.multiprocessors;
    set(hardware().dispatch_multiprocessors, "system.dispatch_multiprocessors",
        rounded(share * facts_.multiprocessors),
        why + concat(": ", percent(share), " of the multiprocessors"));
  }

  Communicator& world_;
  c10::Device device_;
  const CalibrationSettings& settings_;
  DeviceFacts facts_;
  CalibrationShapes shapes_;
  Calibration result_;
  double copied_ = 0;  // bytes/s
};

}  // namespace

Calibration calibrate(Communicator& world, c10::Device device,
                      const CalibrationSettings& settings) {
  return Calibrator(world, device, settings).run();
}

std::string hardware_file_name(const std::string& name, int num_ranks) {
  std::string file;
  for (const char letter : name) {
    const auto byte = static_cast<unsigned char>(letter);
    if (std::isalnum(byte) != 0) {
      file += static_cast<char>(std::tolower(byte));
    } else if (!file.empty() && file.back() != '-') {
      file += '-';
    }
  }
  while (file.ends_with('-')) file.pop_back();
  if (file.empty()) file = "hardware";
  return concat(file, num_ranks > 1 ? concat("-x", num_ranks) : "", ".toml");
}

}  // namespace moetron
