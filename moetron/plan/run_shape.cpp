#include "moetron/plan/run_shape.h"

#include "moetron/arch/config_from_options.h"
#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

ModelConfig model_of(const Options& options) {
  const std::filesystem::path load = options.checkpoint.load;
  if (load.empty()) return model_config_from_options(options);
  ModelConfig config = read_model_config(load);
  check_options_match(config, options, (load / "config.json").string());
  return config;
}

DispatchScheme scheme_of(TokenDispatcher dispatcher) {
  switch (dispatcher) {
    case TokenDispatcher::kAllGather:
    case TokenDispatcher::kAllGatherFused:
    case TokenDispatcher::kOverlapAllGatherFused:
      return DispatchScheme::kAllGather;
    case TokenDispatcher::kAllToAll:
    case TokenDispatcher::kOverlapAllToAll:
      return DispatchScheme::kPerExpert;
    case TokenDispatcher::kDeepep:
    case TokenDispatcher::kOverlapDeepep:
      return DispatchScheme::kPerRank;
  }
  throw InternalError("unknown dispatcher");
}

bool overlaps(TokenDispatcher dispatcher) {
  return dispatcher == TokenDispatcher::kOverlapAllGatherFused ||
         dispatcher == TokenDispatcher::kOverlapAllToAll ||
         dispatcher == TokenDispatcher::kOverlapDeepep;
}

Recompute recompute_of(const MemoryOptions& memory) {
  if (memory.recompute_granularity) return Recompute::kLayer;
  if (memory.moe_layer_recompute) return Recompute::kMoeLayer;
  return memory.mlp_recompute ? Recompute::kExpertProduct : Recompute::kNothing;
}

}  // namespace

RunShape run_shape(const Options& options) {
  const ParallelOptions& parallel = options.parallel;
  RunShape shape;
  shape.model = model_of(options);
  shape.sizes =
      parallel_sizes(*options.simulate.world_size, parallel.tensor_model_parallel_size,
                     parallel.pipeline_model_parallel_size, parallel.expert_model_parallel_size,
                     parallel.tensor_model_parallel_for_expert);
  check_layout(shape.sizes, shape.model, options.model.mla_replicate_l1);
  shape.seq_length = options.training.seq_length;
  shape.micro_batch_size = options.training.micro_batch_size;
  shape.num_micro_batches = options.simulate.num_micro_batches
                                ? *options.simulate.num_micro_batches
                                : num_micro_batches(shape.sizes, shape.micro_batch_size,
                                                    options.training.global_batch_size);
  const TokenDispatcher dispatcher = options.moe.moe_token_dispatcher_type;
  shape.scheme = options.simulate.dispatch_scheme.value_or(scheme_of(dispatcher));
  shape.overlaps = overlaps(dispatcher);
  shape.recompute = recompute_of(options.memory);
  shape.layers_per_input = options.memory.recompute_num_layers;
  shape.distributed_optimizer = options.optimizer.use_distributed_optimizer;
  shape.mla_replicate_l1 = options.model.mla_replicate_l1;
  shape.mla_recomputes_norms = options.model.mla_fuse_qkv;
  return shape;
}

}  // namespace moetron
