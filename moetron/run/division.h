// What must divide what, for a model to be laid out over ranks: the one place of these rules.
// arch/tensors.h says how the tensors are divided then.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "moetron/arch/mesh_layout.h"
#include "moetron/arch/model_config.h"
#include "moetron/base/mistakes.h"

namespace moetron {

struct Options;

// The numbers of a model that ranks divide, as far as they are known.
struct DividedWidths {
  std::optional<int64_t> attention_heads;
  std::optional<int64_t> query_groups;  // of grouped-query attention
  // Of latent attention whose down projections are divided.
  std::optional<int64_t> q_lora_rank, kv_lora_rank, qk_rope_head_dim;
  std::optional<int64_t> dense_width;  // ffn-hidden-size, if a layer has it
  std::optional<int64_t> num_experts, expert_width;
  std::optional<int64_t> num_shared_experts;
  bool has_experts = true;  // some layer has, or nobody knows yet
};
DividedWidths divided_widths(const Options& options);  // what was given
DividedWidths divided_widths(const ModelConfig& config, bool mla_replicate_l1);

// Possible beside plain division: fewer key and value heads than tensor-parallel ranks, if they
// divide them (each head is then held by several ranks), and any vocabulary (it is padded).
void check_division(const DividedWidths& widths, const ParallelSizes& sizes, Mistakes& mistakes);
// The same of a whole model. Throws ConfigError with a line for each mistake.
void check_division(const ModelConfig& config, const ParallelSizes& sizes,
                    bool mla_replicate_l1 = false);

// Shards of weights that are multiplied in 8 bits are whole blocks of 128, so that a model's
// numbers do not depend on how it is laid out.
void check_fp8_division(const ModelConfig& config, const ParallelSizes& sizes,
                        bool mla_replicate_l1, Mistakes& mistakes);

// In rising order, those above `most` left out.
std::vector<int64_t> divisors(int64_t number, int64_t most);

// "name (a) must be a multiple of other (b)", where both are known.
void check_multiple(const char* name, std::optional<int64_t> value, const char* other,
                    std::optional<int64_t> divisor, Mistakes& mistakes);

}  // namespace moetron
