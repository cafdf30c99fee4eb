// A model's weights in another floating-point type.
#pragma once

#include <vector>

#include "moetron/convert/tensor_source.h"

namespace moetron {

// Weights (F32, BF16, F16) as `dtype`; all else as it is: integers, and the biases that routers
// balance their experts by, which choose experts by small differences and stay what they are.
class TypedSource : public TensorSource {
 public:
  // `source` outlives this.
  TypedSource(const TensorSource& source, SafetensorsDtype dtype);

  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override;

 private:
  const TensorSource& source_;
  std::vector<SafetensorsTensor> tensors_;
};

}  // namespace moetron
