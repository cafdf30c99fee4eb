// What a micro-batch keeps between its forward and its backward, by purpose.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moetron {

struct ActivationBytes {
  std::string purpose;  // "attention", "experts", "recompute inputs", ...
  int64_t bytes = 0;
};

// Of one micro-batch on one rank.
struct ActivationMemory {
  std::vector<ActivationBytes> kept;  // at the end of the forward; every purpose once
  int64_t peak_bytes = 0;             // the most that was alive at once, forward or backward

  // Adds to the purpose's bytes; a new purpose goes to the end.
  void add(const std::string& purpose, int64_t bytes);
  int64_t kept_bytes() const;  // the sum of all purposes
};

// "activations of a micro-batch: 1.50 GiB kept (experts 1.00 GiB, attention 0.50 GiB), 2.00 GiB at
// most", the largest purpose first; those of less than a thousandth are left out.
std::string describe(const ActivationMemory& memory);

}  // namespace moetron
