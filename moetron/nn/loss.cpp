#include "moetron/nn/loss.h"

#include <ATen/ATen.h>

namespace moetron {

at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& labels) {
  return at::cross_entropy_loss(logits.to(at::kFloat), labels, {}, at::Reduction::Sum,
                                kIgnoredLabel);
}

}  // namespace moetron
