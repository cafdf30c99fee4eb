// For tests: slices of a micro-batch that are not in the order of the ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "moetron/parallel/token_layout.h"

namespace moetron {

// As context parallelism divides tokens under a causal mask: of twice as many parts as ranks, rank
// r has parts r and 2 ranks - 1 - r. The first parts have a token more where they differ.
inline std::vector<std::vector<TokenStretch>> zig_zag(int64_t size, int64_t tokens) {
  const int64_t parts = 2 * size;
  std::vector<TokenStretch> all;
  for (int64_t part = 0, begin = 0; part < parts; ++part) {
    const int64_t count = tokens / parts + (part < tokens % parts ? 1 : 0);
    all.push_back({begin, count});
    begin += count;
  }
  std::vector<std::vector<TokenStretch>> of_ranks;
  for (int64_t rank = 0; rank < size; ++rank) {
    of_ranks.push_back(
        {all[static_cast<size_t>(rank)], all[static_cast<size_t>(parts - 1 - rank)]});
  }
  return of_ranks;
}

}  // namespace moetron
