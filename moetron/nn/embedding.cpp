#include "moetron/nn/embedding.h"

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"

namespace moetron {
namespace {

class Embedding final : public Operation {
 public:
  Embedding(at::Tensor tokens, Parameter& table) : tokens_(std::move(tokens)), table_(table) {}

  std::vector<at::Tensor> backward_input(const at::Tensor&) override { return {}; }

  void backward_weight(const at::Tensor& d_y) override {
    // One row after another, so that the order of additions is fixed.
    const at::Tensor rows = d_y.reshape({-1, d_y.size(-1)}).to(at::kFloat);  // [tokens, hidden]
    table_.grad().index_add_(0, tokens_.reshape(-1), rows);
  }

 private:
  at::Tensor tokens_;
  Parameter& table_;
};

}  // namespace

at::Tensor embedding(const at::Tensor& tokens, Parameter& table, SegmentRun& run) {
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = at::embedding(table.value(), tokens);
  }
  run.attach(y, std::make_shared<Embedding>(tokens, table), {});
  return y;
}

}  // namespace moetron
