#include "moetron/run/run_spec.h"

#include "moetron/base/error.h"

namespace moetron {

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
  throw InternalError("a token dispatcher without a scheme");
}

RecomputeSettings RecomputeSpec::of_chunks() const {
  using Kind = RecomputeSettings::Kind;
  if (kind == Recompute::kLayer) return {Kind::kFull, layers_per_input};
  return {kind == Recompute::kMoeLayer ? Kind::kMoeLayer : Kind::kNone};
}

}  // namespace moetron
