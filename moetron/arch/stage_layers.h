// Which layers of a model one stage of the pipeline holds.
#pragma once

#include <cstdint>

namespace moetron {

struct StageLayers {
  int64_t first = 0;  // decoder layers [first, first + count); count may be 0
  int64_t count = 0;
  bool has_embedding = false;
  bool has_head = false;

  bool operator==(const StageLayers&) const = default;
};

}  // namespace moetron
