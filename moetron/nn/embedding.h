// Token embedding: rows of a table, which tensor-parallel ranks divide by rows.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "moetron/arch/tensors.h"
#include "moetron/autograd/parameter.h"
#include "moetron/comm/communicator.h"

namespace moetron {

class SegmentRun;

// Which rows of a table over the vocabulary a rank holds: `rows` of them, the same number on every
// rank. Rows beyond the vocabulary, on the last ranks, are padding.
struct VocabShard {
  Communicator* group = nullptr;  // null: one rank holds all
  int64_t vocab_size = 0;

  int64_t size() const { return group == nullptr ? 1 : group->size(); }
  int64_t rows() const { return padded_part(vocab_size, size()); }
  int64_t first() const { return group == nullptr ? 0 : group->rank() * rows(); }
  int64_t num_padding() const;  // rows of this rank that are no token's
};

// The parameter [rows, hidden] of a table [vocab, hidden] named `name`.
Parameter vocab_parameter(const std::string& name, const VocabShard& shard, int64_t hidden_size,
                          const at::TensorOptions& options);

// tokens [tokens] int64 -> [tokens, hidden]; zero for tokens whose row is another rank's.
at::Tensor embedding(const at::Tensor& tokens, Parameter& table, const VocabShard& shard,
                     SegmentRun& run);

}  // namespace moetron
