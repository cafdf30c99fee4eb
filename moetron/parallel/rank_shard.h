// A rank's part of a tensor, by the rule that arch/tensors.h has for it.
#pragma once

#include "moetron/arch/tensors.h"
#include "moetron/autograd/parameter.h"

namespace moetron {

class Communicator;

struct RankShard {
  ShardOf shard;         // what this rank holds
  ReplicaRule replicas;  // and which ranks hold the same
};

// Of a dense tensor. `tensor_group`: the tensor-parallel ranks; null: there is one.
RankShard rank_shard(const ShardRule& rule, const Communicator* tensor_group,
                     const DivisionSettings& settings = {});
// Of a routed expert's, which `tpe` ranks share, this one as number `tpe_rank`.
RankShard expert_shard(const ShardRule& rule, int64_t tpe_rank, int64_t tpe);

}  // namespace moetron
