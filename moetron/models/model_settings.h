// How a model is laid out and run, beside its shape.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/arch/stage_layers.h"
#include "moetron/config/options.h"
#include "moetron/parallel/mesh.h"
#include "moetron/pipeline/chunk.h"

namespace moetron {

struct ModelSettings {
  at::TensorOptions options = at::kFloat;  // dtype and device of the parameters
  Mesh* mesh = nullptr;                    // null: the whole model on this rank

  bool mla_replicate_l1 = false;
  bool mla_fuse_qkv = false;         // one product; a run recomputes norms with it
  bool mla_recompute_norms = false;  // in front of latent attention's projections
  TokenDispatcher dispatcher = TokenDispatcher::kAllGatherFused;
  bool grouped_gemm = true;
  std::optional<double> capacity_factor;  // rows of an expert over the mean; empty: no drop
  TokenDropPolicy drop_policy = TokenDropPolicy::kProbs;
  bool pad_to_capacity = false;
  int64_t micro_batch_tokens = 0;  // the most of a micro-batch; 0: any (not where pad_to_capacity)
  bool mlp_recompute = false;
  RecomputeSettings recompute;
  std::vector<StageLayers> stages;  // of this rank's chunks; empty: one chunk of all layers

  Dispatcher* rank_dispatcher = nullptr;  // of all layers; set by the model, which owns it

  // Null where one rank holds all of a dense layer.
  Communicator* tensor_group() const { return mesh != nullptr ? mesh->tensor_group() : nullptr; }
};

}  // namespace moetron
