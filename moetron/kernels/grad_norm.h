// Sums of squares of many gradients on a GPU, as one pass over memory: 4 bytes an element.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

// Squares are summed in fp64, in an order that is the same on every run.
class SumsOfSquares {
 public:
  // `slices`: each contiguous fp32, all on one GPU; kept.
  explicit SumsOfSquares(std::vector<at::Tensor> slices);

  // [slices] fp64 on the GPU, of what the slices hold then; overwritten by the next call. The host
  // waits for nothing.
  at::Tensor compute();

 private:
  std::vector<at::Tensor> slices_;
  at::Tensor blocks_;        // [blocks, 2] int64: address and number of the elements of each
  at::Tensor first_blocks_;  // [slices + 1] int64: of each slice, then the number of all
  at::Tensor partial_;       // [blocks] fp64
  at::Tensor sums_;          // [slices] fp64
};

}  // namespace moetron
