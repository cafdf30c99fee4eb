#include "moetron/pipeline/value.h"

#include <utility>

namespace moetron {

Value Value::of(Routing routing) {
  Value value;
  value.data = std::exchange(routing.probabilities, {});
  value.layout = std::move(routing);
  return value;
}

Routing Value::routing() const {
  Routing routing = std::get<Routing>(layout);
  routing.probabilities = data;
  return routing;
}

}  // namespace moetron
