#include "moetron/plan/dispatch_time.h"

#include <algorithm>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// The probability that none of a token's experts is among a share of 1 / parts of them.
double missed(const MoeConfig& moe, double parts) {
  const auto experts = static_cast<double>(moe.num_experts);
  double probability = 1;
  for (int64_t i = 0; i < moe.top_k; ++i) {
    const auto taken = static_cast<double>(i);
    probability *= std::max(0.0, experts - experts / parts - taken) / (experts - taken);
  }
  return probability;
}

// Of the ranks with different experts, those that a token goes to.
double reached_ranks(const RunSpec& spec) {
  const auto ranks = static_cast<double>(spec.sizes.ep);
  return ranks * (1 - missed(*spec.model.moe, ranks));
}

TokenDispatcher plain_kind(TokenDispatcher dispatcher) {
  switch (dispatcher) {
    case TokenDispatcher::kOverlapAllGatherFused:
      return TokenDispatcher::kAllGatherFused;
    case TokenDispatcher::kOverlapAllToAll:
      return TokenDispatcher::kAllToAll;
    case TokenDispatcher::kOverlapDeepep:
      return TokenDispatcher::kDeepep;
    default:
      return dispatcher;
  }
}

}  // namespace

double received_copies(const RunSpec& spec) {
  const auto tensor = static_cast<double>(spec.sizes.tpe);
  switch (spec.experts.scheme) {
    case DispatchScheme::kPerExpert:
      return tensor * static_cast<double>(spec.model.moe->top_k);
    case DispatchScheme::kPerRank:
    case DispatchScheme::kPerNode:
      return tensor * reached_ranks(spec);
    case DispatchScheme::kAllGather:
      return tensor * static_cast<double>(spec.sizes.ep);
  }
  throw InternalError("unknown dispatch scheme");
}

DispatchVolume dispatch_volume(const RunSpec& spec, int64_t gpus_per_node) {
  const MoeConfig& moe = *spec.model.moe;
  const auto tensor = static_cast<double>(spec.sizes.tpe);
  const auto ranks = static_cast<double>(spec.sizes.ep);
  // The ranks of an expert-parallel group lie `tensor` apart.
  const double near = std::clamp(static_cast<double>(gpus_per_node) / tensor, 1.0, ranks);
  const double nodes = ranks / near;
  const double tokens = 2 * spec.tokens_per_rank() * static_cast<double>(spec.model.hidden_size);
  const double rank_copies = reached_ranks(spec);
  // Ranks that share experts exchange what each of them got.
  const double shared = tokens * (tensor - 1);
  const auto split = [&](double copies) {
    return DispatchVolume{tokens * copies * (near - 1) / ranks + shared,
                          tokens * copies * (ranks - near) / ranks};
  };
  switch (spec.experts.scheme) {
    case DispatchScheme::kPerExpert:
      return split(static_cast<double>(moe.top_k));
    case DispatchScheme::kPerRank:
      return split(rank_copies);
    case DispatchScheme::kPerNode:  // within a node on to every rank that needs it
      return {tokens * rank_copies * (ranks - 1) / ranks + shared,
              tokens * (nodes - 1) * (1 - missed(moe, nodes))};
    case DispatchScheme::kAllGather:  // each of a node's links brings a part in
      return {tokens * (ranks - 1) + shared, tokens * (ranks - near) / near};
  }
  throw InternalError("unknown dispatch scheme");
}

double dispatch_overhead(const ExpertsSpec& experts, const Hardware& hardware) {
  const auto own = hardware.dispatch_overheads.find(plain_kind(experts.dispatcher));
  const bool is_its_own = experts.scheme == scheme_of(experts.dispatcher);
  return is_its_own && own != hardware.dispatch_overheads.end() ? own->second
                                                                : hardware.dispatch_overhead;
}

double dispatch_time(const RunSpec& spec, const Hardware& hardware) {
  if (spec.sizes.ep * spec.sizes.tpe == 1) return 0;
  const DispatchVolume volume = dispatch_volume(spec, hardware.gpus_per_node);
  return std::max(volume.node / hardware.node_rate, volume.network / hardware.network_rate) +
         dispatch_overhead(spec.experts, hardware);
}

}  // namespace moetron
