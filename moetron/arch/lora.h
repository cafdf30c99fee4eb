// Low-rank updates of a model's linear operations (LoRA: Hu et al., arXiv 2106.09685): which
// weights have one, what PEFT calls its factors, and how ranks divide them.
//
// A weight [out, in] gets A [rank, in] and B [out, rank]; y = x W^T + alpha / rank (x A^T) B^T.
// transformers keeps the routed experts' weights stacked, gate above up, and PEFT updates them so:
// one A for gate and up of an expert.
//
// Ranks that divide W by rows (queries, gate, up) hold all of A, whose gradient is the sum of
// theirs, and the rows of B that belong to their rows of W. Ranks that divide W by columns (o_proj,
// down_proj) hold A's columns and all of B, whose gradient is the sum of theirs. Tensor-parallel
// ranks do so with dense weights, those that share an expert (TPE) with its.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/arch/inventory.h"
#include "moetron/arch/model_config.h"

namespace moetron {

struct LoraConfig {
  int64_t rank = 0;
  double alpha = 0;
  std::vector<std::string> targets;  // of lora_targets(), in its order

  double scale() const { return alpha / static_cast<double>(rank); }
  bool has(std::string_view target) const;
  bool operator==(const LoraConfig&) const = default;
};

// Of the routed experts' stacked weights.
inline constexpr std::string_view kExpertGateUp = "experts.gate_up_proj";
inline constexpr std::string_view kExpertDown = "experts.down_proj";

// What of a model can have an update: the modules' own names, "q_proj", of attention, dense MLPs
// and shared experts, and those of the routed experts. The router, embedding and head are no
// targets.
std::vector<std::string> lora_targets(const ModelConfig& config);

// `given`: as --lora-targets has it; "experts" means both of theirs; empty: all. ConfigError, which
// names what there is, for one that the model does not have.
std::vector<std::string> find_lora_targets(const ModelConfig& config,
                                           const std::vector<std::string>& given);

// The number of a routed expert, by the Hugging Face name of a weight of it; -1: of none.
int64_t expert_of(std::string_view weight);

// Which target a weight belongs to, by its Hugging Face name; empty: to none.
std::string lora_target(std::string_view weight);

// The name of a factor in an adapter's file. Of all experts of a layer it is one tensor: A [experts
// * rank, in], expert by expert; B [out, rank * experts], expert fastest.
enum class LoraFactor { kA, kB };
std::string lora_name(const LoraConfig& lora, std::string_view weight, LoraFactor factor);

// The factors of a weight's update as ranks hold them, for counting; of a routed expert its own, of
// which gate and up share A. None where the weight is no target.
std::vector<TensorInfo> lora_tensors(const LoraConfig& lora, const TensorInfo& weight);

}  // namespace moetron
