#include "moetron/parallel/micro_batch.h"

#include <ATen/ATen.h>

namespace moetron {

MicroBatch make_micro_batch(const at::Tensor& tokens, const at::Tensor& labels,
                            Communicator* tensor_group) {
  MicroBatch micro_batch;
  micro_batch.tokens = tokens;
  micro_batch.labels = labels;
  micro_batch.positions = at::arange(tokens.size(1), tokens.options()).repeat({tokens.size(0), 1});
  micro_batch.layout = TokenLayout(tensor_group, tokens.numel());
  micro_batch.num_real_tokens = tokens.numel();
  return micro_batch;
}

}  // namespace moetron
