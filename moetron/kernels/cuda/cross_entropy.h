// Launch of the kernel of cross_entropy.h.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

struct CrossEntropyArgs {
  void* logits;           // [tokens, vocab] bf16; its gradient afterwards
  const int64_t* labels;  // [tokens]
  float* losses;          // [tokens]; NaN where a label is no token of the vocabulary
  int64_t tokens;
  int vocab;  // at most 900,000
  int64_t ignored;
  float scale;
};

// Fast where rows begin at multiples of 16 bytes.
void launch_cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream);

}  // namespace moetron
