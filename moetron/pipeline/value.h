// What flows between the nodes of a layer, and between the stages of a pipeline.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

// A choice that goes nowhere: the token is padding, or its expert was full.
constexpr int64_t kNotRouted = -1;

// Which experts each token goes to, and with what weight. Stored, never recomputed.
struct Routing {
  at::Tensor experts;        // [tokens, top_k] int64, global expert numbers or kNotRouted
  at::Tensor probabilities;  // [tokens, top_k] fp32
  at::Tensor chosen;         // [tokens, top_k] int64, the router's choice, before padding and drop
  bool all_go = false;       // known here: no choice is kNotRouted
};

// Where the rows of each local expert are. An expert's begin where those of the one before it end,
// at a multiple of the dispatcher's alignment: what an expert is filled up with are rows of zeros,
// of probability zero, that count as its own.
struct ExpertRows {
  std::vector<int64_t> counts;  // empty where the device alone knows
  at::Tensor ends;              // [experts] int32, on the device
};

// The rows of SlotType::kTokens: as the record's TokenLayout says.
struct TokenRows {};

// Of a slot that holds nothing (logits where there are labels) `data` is undefined.
struct Value {
  at::Tensor data;  // [rows, width], what gradients flow through, which are of a type of their own
                    // where data is in 8 bits
  // [rows, any] fp32, of data in fewer bits, which it is to be multiplied by; undefined: none
  at::Tensor scales;
  // How the rows lie. Of a kRouting slot: the routing but for its probabilities, which are `data`.
  std::variant<TokenRows, ExpertRows, Routing> layout;

  // Of a kRouting slot.
  static Value of(Routing routing);
  Routing routing() const;
};

}  // namespace moetron
