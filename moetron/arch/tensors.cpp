#include "moetron/arch/tensors.h"

#include "moetron/base/error.h"

namespace moetron {
namespace {

TensorShard head_shard(const ShardRule& rule, int64_t rank, int64_t ranks, int64_t heads) {
  MT_CHECK(heads >= 1 && (heads % ranks == 0 || ranks % heads == 0), heads, " key-value heads on ",
           ranks, " ranks");
  const int64_t copies = heads < ranks ? ranks / heads : 1;
  return {.dim = rule.dim, .index = rank / copies, .count = ranks / copies, .copies = copies};
}

}  // namespace

TensorShard tensor_shard(const ShardRule& rule, int64_t rank, int64_t ranks,
                         const DivisionSettings& settings) {
  const TensorShard part{.dim = rule.dim, .index = rank, .count = ranks, .copies = 1};
  switch (rule.division) {
    case Division::kWhole:
      return {};
    case Division::kParts:
    case Division::kVocabulary:
      return part;
    case Division::kKeyValueHeads:
      return head_shard(rule, rank, ranks, settings.num_key_value_heads);
    case Division::kLatents:
      return ranks == 1 || settings.mla_replicate_l1 ? TensorShard() : part;
  }
  throw InternalError("a tensor without a rule of division");
}

std::string layer_prefix(int64_t layer) {
  return concat(kLayers, layer, ".");
}

}  // namespace moetron
