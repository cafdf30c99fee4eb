#include "moetron/cli/nearest_fit.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/config/options.h"
#include "moetron/plan/dry_run.h"
#include "moetron/run/division.h"

namespace moetron {
namespace {

// A changed run, and the options that change it.
struct Trial {
  Options options;
  bool has_replicas = false;  // of dense parameters, which may divide their states
  std::string words = "";
};

void add_words(Trial& trial, const std::string& words) {
  trial.words += (trial.words.empty() ? "" : " ") + words;
}

// Each returns whether there is anything to change.

bool divide_states(Trial& trial) {
  if (!trial.has_replicas) return false;
  if (std::exchange(trial.options.optimizer.use_distributed_optimizer, true)) return false;
  add_words(trial, "--use-distributed-optimizer");
  return true;
}

bool recompute_product(Trial& trial) {
  MemoryOptions& memory = trial.options.memory;
  if (memory.recompute_granularity || memory.moe_layer_recompute || memory.mlp_recompute)
    return false;
  memory.mlp_recompute = true;
  add_words(trial, "--mlp-recompute");
  return true;
}

bool recompute_experts(Trial& trial) {
  MemoryOptions& memory = trial.options.memory;
  if (memory.recompute_granularity || memory.moe_layer_recompute) return false;
  memory.moe_layer_recompute = true;
  add_words(trial, "--moe-layer-recompute");
  return true;
}

bool recompute_layers(Trial& trial) {
  MemoryOptions& memory = trial.options.memory;
  if (memory.recompute_granularity) return false;
  memory.recompute_granularity = RecomputeGranularity::kFull;
  add_words(trial, "--recompute-granularity full");
  return true;
}

bool shrink_micro_batch(Trial& trial) {
  int64_t& size = trial.options.training.micro_batch_size;
  if (size == 1) return false;
  size = 1;
  add_words(trial, "--micro-batch-size 1");
  return true;
}

bool move_states(Trial& trial) {
  OptimizerOptions& optimizer = trial.options.optimizer;
  if (optimizer.optimizer == OptimizerKind::kHybridAdam &&
      optimizer.optimizer_offload_fraction == 1)
    return false;
  optimizer.optimizer = OptimizerKind::kHybridAdam;
  optimizer.optimizer_offload_fraction = 1;
  add_words(
      trial,
      "--optimizer hybridadam --optimizer-offload-policy static --optimizer-offload-fraction 1");
  return true;
}

using Change = bool (*)(Trial&);

// Where at least one of them changes anything.
std::optional<Trial> changed(Trial trial, std::initializer_list<Change> changes) {
  bool is_changed = false;
  for (const Change change : changes) is_changed = change(trial) || is_changed;
  return is_changed ? std::optional(std::move(trial)) : std::nullopt;
}

// In a row: between them, for the micro-batch, every half of its size.
std::vector<Trial> cheap_trials(const Trial& asked) {
  std::vector<Trial> trials;
  const auto add = [&](std::initializer_list<Change> changes) {
    if (auto trial = changed(asked, changes)) trials.push_back(std::move(*trial));
  };
  add({divide_states});
  add({recompute_product});
  add({recompute_experts});
  add({recompute_layers});
  for (int64_t size = asked.options.training.micro_batch_size / 2; size >= 1; size /= 2) {
    Trial& trial = trials.emplace_back(asked);
    trial.options.training.micro_batch_size = size;
    add_words(trial, concat("--micro-batch-size ", size));
  }
  add({divide_states, recompute_product});
  add({divide_states, recompute_experts});
  add({divide_states, recompute_layers});
  add({divide_states, recompute_layers, shrink_micro_batch});
  add({move_states});
  add({divide_states, move_states});
  add({divide_states, recompute_product, move_states});
  add({divide_states, recompute_experts, move_states});
  add({divide_states, recompute_layers, shrink_micro_batch, move_states});
  return trials;
}

// Divisions of the same ranks, those with the fewest and smallest changes first. The pipeline keeps
// its length where layers are given for each stage.
std::vector<Trial> other_layouts(const Options& options, int64_t world, int64_t gpus_per_node) {
  const ParallelOptions& asked = options.parallel;
  const bool keeps_stages = !asked.hetero_pipeline_stages.empty() ||
                            !asked.virtual_hetero_pipeline_stages.empty() ||
                            asked.num_layers_per_virtual_pipeline_stage.has_value();
  std::vector<std::tuple<int, double, Trial>> layouts;
  for (const int64_t pp : divisors(world, world)) {
    if (keeps_stages && pp != asked.pipeline_model_parallel_size) continue;
    for (const int64_t tp : divisors(world / pp, gpus_per_node)) {
      for (const int64_t ep : divisors(world / pp, world)) {
        Trial trial{options, /*has_replicas=*/world > pp * tp};
        int changes = 0;
        double distance = 0;
        const auto set = [&](int64_t& size, int64_t to, const char* name) {
          if (size == to) return;
          ++changes;
          distance += std::abs(std::log2(static_cast<double>(to) / static_cast<double>(size)));
          size = to;
          add_words(trial, concat("--", name, " ", to));
        };
        ParallelOptions& parallel = trial.options.parallel;
        set(parallel.pipeline_model_parallel_size, pp, "pipeline-model-parallel-size");
        set(parallel.expert_model_parallel_size, ep, "expert-model-parallel-size");
        set(parallel.tensor_model_parallel_size, tp, "tensor-model-parallel-size");
        if (changes > 0) layouts.emplace_back(changes, distance, std::move(trial));
      }
    }
  }
  std::stable_sort(layouts.begin(), layouts.end(), [](const auto& a, const auto& b) {
    return std::tie(std::get<0>(a), std::get<1>(a)) < std::tie(std::get<0>(b), std::get<1>(b));
  });
  std::vector<Trial> trials;
  for (auto& layout : layouts) trials.push_back(std::move(std::get<2>(layout)));
  return trials;
}

class Search {
 public:
  Search(const RunFacts& facts, const Hardware& hardware) : facts_(facts), hardware_(hardware) {}

  // Whether it fits.
  bool take(const Trial& trial) {
    std::vector<RankMemory> memory;
    try {
      memory = memory_of(resolve_run(trial.options, facts_));
    } catch (const ConfigError&) {
      return false;  // no run at all
    }
    const double most = memory[static_cast<size_t>(fullest_rank(memory))].total();
    const bool is_enough = fits(memory, hardware_);
    if (is_enough || words_.empty() || most < most_) {
      words_ = trial.words;
      most_ = most;
    }
    return is_enough;
  }
  bool take(const std::vector<Trial>& trials) {
    return std::any_of(trials.begin(), trials.end(),
                       [this](const Trial& trial) { return take(trial); });
  }

  const std::string& words() const { return words_; }
  std::string most() const { return formatted("%.2f GB", most_ / 1e9); }

 private:
  const RunFacts& facts_;
  const Hardware& hardware_;
  std::string words_;  // of the closest so far
  double most_ = 0;
};

}  // namespace

std::string nearest_fit(const Options& options, const RunFacts& facts, const Hardware& hardware) {
  Search search(facts, hardware);
  std::vector<Trial> layouts = other_layouts(options, facts.world_size, hardware.gpus_per_node);
  const ParallelOptions& parallel = options.parallel;
  const bool has_replicas = facts.world_size > parallel.pipeline_model_parallel_size *
                                                   parallel.tensor_model_parallel_size;
  bool is_found = search.take(cheap_trials({options, has_replicas})) || search.take(layouts);
  if (!is_found) {
    for (Trial& trial : layouts)
      for (const Change change : {divide_states, recompute_layers, shrink_micro_batch, move_states})
        change(trial);
    is_found = search.take(layouts);
  }
  if (is_found) return concat("it fits with ", search.words(), " (", search.most(), ")");
  return search.words().empty() ? "nothing that was tried is a run"
                                : concat("nothing that was tried fits: ", search.words(),
                                         " comes closest, with ", search.most());
}

}  // namespace moetron
