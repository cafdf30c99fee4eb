// For tests: all tokens of a sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moetron/formats/indexed_dataset.h"

namespace moetron {

inline std::vector<int32_t> read_sequence(const IndexedDataset& dataset, int64_t sequence) {
  std::vector<int32_t> tokens(static_cast<size_t>(dataset.sequence_length(sequence)));
  dataset.get(sequence, 0, tokens);
  return tokens;
}

}  // namespace moetron
