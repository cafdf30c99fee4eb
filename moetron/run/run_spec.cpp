#include "moetron/run/run_spec.h"

#include "moetron/base/error.h"

namespace moetron {

DispatchScheme scheme_of(TokenDispatcher dispatcher) {
  for (const NamedDispatcher& known : kDispatchers) {
    if (known.kind == dispatcher) return known.scheme;
  }
  throw InternalError("a token dispatcher without a scheme");
}

RecomputeSettings RecomputeSpec::of_chunks() const {
  using Kind = RecomputeSettings::Kind;
  if (kind == Recompute::kLayer) return {Kind::kFull, layers_per_input};
  return {kind == Recompute::kMoeLayer ? Kind::kMoeLayer : Kind::kNone};
}

}  // namespace moetron
