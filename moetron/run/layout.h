// How a run is laid out over ranks: what a search for the fastest layout chooses.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moetron/run/run_spec.h"

namespace moetron {

struct Options;

struct Layout {
  int64_t tp = 1, tpe = 1, ep = 1, pp = 1;
  ScheduleKind kind = ScheduleKind::k1F1B;
  int num_chunks = 1;           // of a rank: its virtual stages
  std::vector<int64_t> layers;  // of the stages, as stage_layout() takes them; empty: even
  int64_t micro_batch = 1;      // sequences
  TokenDispatcher dispatcher = TokenDispatcher::kAllGatherFused;
  RecomputeSpec recompute;
  double host_fraction = 0;  // of the elements whose optimizer states the host keeps

  ScheduleRequest request(int64_t num_micro_batches) const;
};

// What may be chosen, in the order in which it is tried. Whether the choices fit together, and to
// the model, is not said.
struct LayoutSpace {
  struct Schedule {
    ScheduleKind kind;
    int num_chunks;
  };

  int64_t world_size = 1;
  int64_t global_batch_size = 0;  // sequences
  std::vector<int64_t> tp, tpe, ep, pp, micro_batch;
  std::vector<Schedule> schedules;
  std::vector<TokenDispatcher> dispatchers;
  std::vector<RecomputeSpec> recompute;  // from the cheapest
  std::vector<double> host_fractions;
  std::optional<std::vector<int64_t>> layers;  // of the stages; empty: as is best
  std::optional<int64_t> layers_per_stage;     // on average; empty: any
};

// The options on the command line (`typed`, by name) stay as they are, and the limits hold; what a
// file says of the layout is searched anew. Throws ConfigError where world-size, seq-length or
// global-batch-size is missing.
LayoutSpace layout_space(const Options& options, const std::vector<std::string>& typed,
                         int64_t gpus_per_node);

// The run in that layout, as pretrain takes it. States are divided among replicas and experts are
// multiplied together, unless `typed` says otherwise: neither costs anything.
Options with_layout(const Options& options, const std::vector<std::string>& typed,
                    const Layout& layout);

}  // namespace moetron
