#include "moetron/parallel/rank_shard.h"

#include "moetron/comm/communicator.h"

namespace moetron {

RankShard rank_shard(const ShardRule& rule, const Communicator* tensor_group,
                     const DivisionSettings& settings) {
  const int64_t rank = tensor_group == nullptr ? 0 : tensor_group->rank();
  const int64_t ranks = tensor_group == nullptr ? 1 : tensor_group->size();
  const TensorShard part = tensor_shard(rule, rank, ranks, settings);
  return {{.dim = part.dim, .index = part.index, .count = part.count},
          {.tensor_copies = part.copies}};
}

RankShard expert_shard(const ShardRule& rule, int64_t tpe_rank, int64_t tpe) {
  const TensorShard part = tensor_shard(rule, tpe_rank, tpe);
  return {{.dim = part.dim, .index = part.index, .count = part.count}, kExpertDivided};
}

}  // namespace moetron
