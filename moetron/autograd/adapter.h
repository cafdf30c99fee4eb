// A low-rank update of a weight (LoRA: Hu et al., arXiv 2106.09685): beside y = x W^T, rows
// [first_row, first_row + out) of W give scale (x A^T) B^T, too. Several updates of one weight are
// those of the tensors that lie in it (queries, keys and values; gate and up).
#pragma once

#include <cstdint>

#include "moetron/autograd/parameter.h"

namespace moetron {

struct Adapter {
  Parameter a;  // [rank, in]; of stacked weights [weights, rank, in]
  Parameter b;  // [out, rank]; of stacked weights [weights, out, rank]
  int64_t first_row = 0;
  double scale = 1;
  bool is_on = true;  // else the weight counts alone

  int64_t num_rows() const { return b.value().size(-2); }
  bool needs_grad() const { return a.needs_grad() || b.needs_grad(); }
};

}  // namespace moetron
