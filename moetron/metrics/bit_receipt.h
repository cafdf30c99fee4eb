// A receipt of bits: hashes of what a step made, by which two runs are the same or name the tensor
// that is not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moetron/base/json.h"

namespace moetron {

// The share of element `index` of a tensor in its hash, which is the sum over the elements modulo
// 2^64: parts of a tensor can be hashed anywhere, in any order, and add up. `bits`: of the value as
// fp32 (of a loss: as fp64). The mixing is that of SplitMix64 (Steele et al., "Fast splittable
// pseudorandom number generators", OOPSLA 2014).
constexpr uint64_t element_hash(uint64_t index, uint64_t bits) {
  uint64_t z = (index + 1) * 0x9E3779B97F4A7C15U + bits;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

struct NamedHash {
  std::string name;  // Hugging Face name
  uint64_t hash = 0;

  bool operator==(const NamedHash&) const = default;
};

struct BitReceipt {
  uint64_t loss = 0;                  // of two elements: the loss, and the aux loss
  std::vector<NamedHash> gradients;   // as reduced, before they are clipped; in name order
  std::vector<NamedHash> parameters;  // behind the update: masters where there are any

  bool operator==(const BitReceipt&) const = default;
};

// Of all hashes: element 0 is the loss, then come gradients and parameters.
uint64_t total_hash(const BitReceipt& receipt);

// "loss", "gradient of NAME" or "parameter NAME": the first that one of them has otherwise or
// alone, in the order in which a step makes them; empty: they are the same.
std::string first_difference(const BitReceipt& a, const BitReceipt& b);

// {"total": "0123456789abcdef", "loss": ..., "gradients": [[NAME, HASH], ...], "parameters": ...}
Json to_json(const BitReceipt& receipt);
// Throws InputError "PLACE: ..." for anything that to_json() does not write.
BitReceipt parse_bit_receipt(const Json& json, const std::string& place);

}  // namespace moetron
