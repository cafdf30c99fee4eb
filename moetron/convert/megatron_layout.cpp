#include "moetron/convert/megatron_layout.h"

#include <numeric>
#include <utility>

#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr const char* kTp = "tensor-model-parallel-size";
constexpr const char* kTpe = "tensor-model-parallel-for-expert";
constexpr const char* kEp = "expert-model-parallel-size";

void check_divides(const char* option, int64_t ranks, const char* what, int64_t size) {
  MT_CHECK_CONFIG(size % ranks == 0, option, " (", ranks, ") must divide ", what, " (", size, ")");
}

void check_experts(const ModelConfig& config, const MegatronLayout& layout) {
  // A file's name has the rank in tp and in ep; the rank in tpe must follow from it.
  MT_CHECK_CONFIG(layout.tp % layout.tpe == 0, kTpe, " (", layout.tpe, ") must divide ", kTp, " (",
                  layout.tp, "), for Megatron's file names do not tell such ranks apart");
  if (!config.moe) {
    MT_CHECK_CONFIG(layout.ep == 1, kEp, " (", layout.ep,
                    ") must be 1 for a model without experts");
    return;
  }
  MT_CHECK_CONFIG(!config.moe->shared_expert_gate,
                  "shared experts with a gate are not there yet in Megatron's files");
  check_divides(kEp, layout.ep, "the number of experts", config.moe->num_experts);
  check_divides(kTpe, layout.tpe, "the width of an expert", config.moe->expert_intermediate_size);
  if (config.moe->shared_intermediate_size > 0)
    check_divides(kTp, layout.tp, "the width of the shared expert",
                  config.moe->shared_intermediate_size);
}

}  // namespace

int64_t padded_vocab_size(const ModelConfig& config, int64_t divisor, int64_t tp) {
  return padded_part(config.vocab_size, divisor * tp) * divisor * tp;
}

void check_layout(const ModelConfig& config, const MegatronLayout& layout) {
  const auto& stages = layout.stage_layers;
  const int64_t total = std::accumulate(stages.begin(), stages.end(), int64_t{0});
  MT_CHECK_CONFIG(std::cmp_equal(stages.size(), layout.num_stages()), "hetero-pipeline-stages has ",
                  stages.size(), " numbers for ", layout.num_stages(), " pipeline stages");
  MT_CHECK_CONFIG(total == config.num_layers, "hetero-pipeline-stages has ", total,
                  " layers, the model ", config.num_layers);
  MT_CHECK_CONFIG(!layout.v_placement || layout.num_chunks == 2,
                  "dualpipev gives each pipeline rank 2 chunks, not ", layout.num_chunks);
  check_divides(kTp, layout.tp, "the number of attention heads", config.num_attention_heads);
  if (!config.mla)
    check_divides(kTp, layout.tp, "the number of key-value heads", config.num_key_value_heads);
  if (config.mla && !layout.transformer_engine) {
    const MlaConfig& mla = *config.mla;
    if (mla.q_lora_rank > 0) check_divides(kTp, layout.tp, "q_lora_rank", mla.q_lora_rank);
    check_divides(kTp, layout.tp, "kv_lora_rank + qk_rope_head_dim",
                  mla.kv_lora_rank + mla.qk_rope_head_dim);
  }
  if (config.num_moe_layers() < config.num_layers)
    check_divides(kTp, layout.tp, "intermediate_size", config.intermediate_size);
  if (config.num_mtp_layers > 0)
    check_divides(kTp, layout.tp, "the hidden size, for multi-token prediction,",
                  config.hidden_size);
  check_experts(config, layout);
}

int64_t num_files(const MegatronLayout& layout) {
  return layout.pp * std::lcm(layout.tp, layout.tpe * layout.ep);
}

std::vector<MegatronRank> file_ranks(const MegatronLayout& layout) {
  std::vector<MegatronRank> ranks;
  const int64_t ranks_of_stage = num_files(layout) / layout.pp;
  for (int64_t pp = 0; pp < layout.pp; ++pp)
    for (int64_t rank = 0; rank < ranks_of_stage; ++rank)
      ranks.push_back({.tp = rank % layout.tp,
                       .tpe = rank % layout.tpe,
                       .ep = rank / layout.tpe % layout.ep,
                       .pp = pp});
  return ranks;
}

std::string rank_folder(const MegatronLayout& layout, const MegatronRank& rank) {
  const auto padded = [](int64_t number, size_t digits) {
    std::string text = std::to_string(number);
    return text.size() < digits ? std::string(digits - text.size(), '0') + text : text;
  };
  std::string name = "mp_rank_" + padded(rank.tp, 2);
  if (layout.pp > 1) name += "_" + padded(rank.pp, 3);
  if (layout.ep > 1) name += "_" + padded(rank.ep, 3);
  return name;
}

std::string chunk_key(const MegatronLayout& layout, int64_t chunk) {
  return layout.num_chunks == 1 ? "model" : concat("model", chunk);
}

int64_t stage_of(const MegatronLayout& layout, int64_t pp_rank, int64_t chunk) {
  return layout.v_placement && chunk == 1 ? 2 * layout.pp - 1 - pp_rank
                                          : chunk * layout.pp + pp_rank;
}

StageLayers chunk_layers(const MegatronLayout& layout, int64_t pp_rank, int64_t chunk) {
  const int64_t stage = stage_of(layout, pp_rank, chunk);
  const auto begin = layout.stage_layers.begin();
  return {.first = std::accumulate(begin, begin + stage, int64_t{0}),
          .count = layout.stage_layers[static_cast<size_t>(stage)],
          .has_embedding = stage == 0,
          .has_head = stage == layout.num_stages() - 1};
}

}  // namespace moetron
