#include "moetron/checkpoint/choose_writers.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace moetron {
namespace {

// How many ranks hold as much of the block as anyone does.
uint64_t count_best(const std::vector<uint64_t>& held) {
  const uint64_t most = *std::max_element(held.begin(), held.end());
  return static_cast<uint64_t>(std::count(held.begin(), held.end(), most));
}

}  // namespace

std::vector<int> choose_writers(const BlockList& blocks, int num_ranks) {
  std::vector<int> writers(blocks.count(), 0);
  if (num_ranks == 1) return writers;
  // What each rank holds is found twice: kept, it would be a number for each block and rank.
  std::vector<uint64_t> num_best(blocks.count());
  std::vector<uint64_t> order(blocks.count());
  std::iota(order.begin(), order.end(), uint64_t{0});
  uint64_t total = 0;
  for (const uint64_t index : order) {
    const FileBlock block = blocks.block(index, 0);
    num_best[index] = count_best(bytes_held(block, num_ranks));
    total += block.bytes();
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](uint64_t a, uint64_t b) { return num_best[a] < num_best[b]; });
  const uint64_t share = total / static_cast<uint64_t>(num_ranks);
  std::vector<uint64_t> load(static_cast<size_t>(num_ranks));
  for (const uint64_t index : order) {
    const FileBlock block = blocks.block(index, 0);
    const std::vector<uint64_t> held = bytes_held(block, num_ranks);
    // Someone is always below its share or at it: what is given out is less than the total.
    size_t best = static_cast<size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    for (size_t rank = 0; rank < load.size(); ++rank) {
      if (load[rank] >= share) continue;
      const bool is_better =
          held[rank] != held[best] ? held[rank] > held[best] : load[rank] < load[best];
      if (is_better) best = rank;
    }
    writers[index] = static_cast<int>(best);
    load[best] += block.bytes();
  }
  return writers;
}

}  // namespace moetron
