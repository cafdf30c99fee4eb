// Orders that depend on a seed, a step and a name alone.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "moetron/base/random.h"

namespace moetron {

// Fisher and Yates's shuffle of up to 2^32 items, with the numbers of RandomStream(seed, step,
// name).
template <class Item>
void shuffle_seeded(std::span<Item> items, uint64_t seed, uint64_t step, std::string_view name) {
  const RandomStream random(seed, step, name);
  for (uint64_t left = items.size(); left > 1; --left) {
    const auto chosen = static_cast<uint64_t>(random.uniform(left) * static_cast<double>(left));
    std::swap(items[left - 1], items[chosen]);
  }
}

}  // namespace moetron
