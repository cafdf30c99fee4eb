// How a model is laid out and run, beside its shape.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/arch/lora.h"
#include "moetron/arch/stage_layers.h"
#include "moetron/parallel/mesh.h"
#include "moetron/pipeline/chunk.h"
#include "moetron/run/frozen_parts.h"
#include "moetron/run/run_spec.h"

namespace moetron {

struct ModelSettings {
  at::TensorOptions options = at::kFloat;  // dtype and device of the parameters
  Mesh* mesh = nullptr;                    // null: the whole model on this rank

  // Of the run (run/run_spec.h).
  LatentAttentionSpec latent_attention;
  ExpertsSpec experts;
  RecomputeSpec recompute;
  std::optional<Fp8Spec> fp8;  // empty: no products in 8 bits
  OperatorsSpec operators;
  FrozenParts frozen;               // are only read
  std::optional<LoraConfig> lora;   // the updates alone are trained; all else is only read
  int64_t micro_batch_tokens = 0;   // the most of a micro-batch; 0: any (not where padded)
  std::vector<StageLayers> stages;  // of this rank's chunks; empty: one chunk of all layers

  Dispatcher* rank_dispatcher = nullptr;  // of all layers; set by the model, which owns it

  // Of the run's operators.
  OperatorChoice operator_choice() const {
    const auto choose = [](bool plain) { return plain ? Operators::kPlain : Operators::kFastest; };
    return {.attention = choose(operators.plain_attention), .others = choose(operators.plain)};
  }
  // Null where one rank holds all of a dense layer.
  Communicator* tensor_group() const { return mesh != nullptr ? mesh->tensor_group() : nullptr; }
};

}  // namespace moetron
