// One training run as the cost model sees it.
#pragma once

#include <cstdint>

#include "moetron/arch/mesh_layout.h"
#include "moetron/arch/model_config.h"
#include "moetron/config/options.h"

namespace moetron {

// What the backward computes again; at most one acts.
enum class Recompute { kNothing, kExpertProduct, kMoeLayer, kLayer };

struct RunShape {
  ModelConfig model;
  ParallelSizes sizes;
  int64_t seq_length = 0;         // tokens
  int64_t micro_batch_size = 0;   // sequences
  int64_t num_micro_batches = 0;  // of a step, on each rank
  DispatchScheme scheme = DispatchScheme::kAllGather;
  bool overlaps = false;  // the dispatcher runs beside the compute of a block
  Recompute recompute = Recompute::kNothing;
  int64_t layers_per_input = 1;  // that share one kept input under kLayer
  bool distributed_optimizer = false;
  bool mla_replicate_l1 = false;
  bool mla_recomputes_norms = false;  // mla-fuse-qkv

  // Of a micro-batch, on each of the ranks that divide its sequences among them.
  double tokens() const { return static_cast<double>(seq_length * micro_batch_size); }
  double tokens_per_rank() const { return tokens() / static_cast<double>(sizes.tp); }
};

// The model is that of `load`, else that of the options. Throws ConfigError as the run itself
// would.
RunShape run_shape(const Options& options);

}  // namespace moetron
