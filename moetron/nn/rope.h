// Rotary position embedding (Su et al., arXiv 2104.09864). The frequencies, with YaRN or Llama-3
// scaling already in them, come from the model's shape.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

class SegmentRun;

// Which elements of a head form a pair: (i, i + dim/2) in Llama and Qwen, (2i, 2i + 1) in DeepSeek.
enum class RopePairs { kHalves, kNeighbours };

// cos and sin of position x frequency, [batch, seq, 1, dim/2], fp32.
struct RopeAngles {
  at::Tensor cos;
  at::Tensor sin;
};

// positions [batch, seq] int64; inverse_frequencies [dim/2] fp32, on the same device; cos and sin
// are multiplied by `scale`.
RopeAngles rope_angles(const at::Tensor& positions, const at::Tensor& inverse_frequencies,
                       double scale);

// x [batch, seq, heads, dim] -> rotated, the same shape.
at::Tensor apply_rope(const at::Tensor& x, const RopeAngles& angles, RopePairs pairs,
                      SegmentRun& run);

}  // namespace moetron
