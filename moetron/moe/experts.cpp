#include "moetron/moe/experts.h"

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/nn/linear.h"

namespace moetron {
namespace {

// Calls visit(expert, first_row, rows) for every expert that has rows.
template <class Visit>
void for_each_group(const std::vector<int64_t>& rows_per_expert, Visit visit) {
  int64_t first = 0;
  for (size_t expert = 0; expert < rows_per_expert.size(); ++expert) {
    const int64_t rows = rows_per_expert[expert];
    if (rows > 0) visit(static_cast<int64_t>(expert), first, rows);
    first += rows;
  }
}

class GroupedLinear final : public Operation {
 public:
  GroupedLinear(at::Tensor x, std::vector<int64_t> rows_per_expert, Parameter& weight)
      : x_(std::move(x)), rows_per_expert_(std::move(rows_per_expert)), weight_(weight) {}

  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    at::Tensor d_x = at::empty(x_.sizes(), x_.options());
    for_each_group(rows_per_expert_, [&](int64_t expert, int64_t first, int64_t rows) {
      at::Tensor part = d_x.narrow(0, first, rows);
      at::mm_out(part, d_y.narrow(0, first, rows), weight_.value()[expert]);
    });
    return {d_x};
  }

  void backward_weight(const at::Tensor& d_y) override {
    for_each_group(rows_per_expert_, [&](int64_t expert, int64_t first, int64_t rows) {
      add_weight_grad(weight_.grad()[expert], d_y.narrow(0, first, rows),
                      x_.narrow(0, first, rows));
    });
    x_.reset();
  }

 private:
  at::Tensor x_;
  std::vector<int64_t> rows_per_expert_;
  Parameter& weight_;
};

// Where expert e's [rows, columns] block begins in a stack of blocks of `block` elements.
ParameterPiece expert_piece(const std::string& name, int64_t rows, int64_t columns,
                            int64_t offset) {
  ParameterPiece piece = piece_of_rows(name, {rows, columns}, 0, 0);
  piece.box.offset = offset;
  return piece;
}

std::vector<ParameterPiece> gate_up_pieces(const std::string& prefix, int64_t num_experts,
                                           int64_t hidden, int64_t width) {
  std::vector<ParameterPiece> pieces;
  for (int64_t e = 0; e < num_experts; ++e) {
    const std::string expert = prefix + std::to_string(e) + ".";
    const int64_t offset = e * 2 * width * hidden;
    pieces.push_back(expert_piece(expert + "gate_proj.weight", width, hidden, offset));
    pieces.push_back(
        expert_piece(expert + "up_proj.weight", width, hidden, offset + width * hidden));
  }
  return pieces;
}

std::vector<ParameterPiece> down_pieces(const std::string& prefix, int64_t num_experts,
                                        int64_t hidden, int64_t width) {
  std::vector<ParameterPiece> pieces;
  for (int64_t e = 0; e < num_experts; ++e) {
    pieces.push_back(expert_piece(prefix + std::to_string(e) + ".down_proj.weight", hidden, width,
                                  e * hidden * width));
  }
  return pieces;
}

}  // namespace

at::Tensor grouped_linear(const at::Tensor& x, const std::vector<int64_t>& rows_per_expert,
                          Parameter& weight, SegmentRun& run) {
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = at::empty({x.size(0), weight.value().size(1)}, x.options());
    for_each_group(rows_per_expert, [&](int64_t expert, int64_t first, int64_t rows) {
      at::Tensor part = y.narrow(0, first, rows);
      at::mm_out(part, x.narrow(0, first, rows), weight.value()[expert].t());
    });
  }
  run.attach(y, std::make_shared<GroupedLinear>(x.detach(), rows_per_expert, weight), {x});
  return y;
}

Experts::Experts(const std::string& prefix, int64_t num_experts, int64_t hidden_size, int64_t width,
                 at::ScalarType dtype)
    : gate_up_(prefix + "gate_up", {num_experts, 2 * width, hidden_size}, dtype,
               gate_up_pieces(prefix, num_experts, hidden_size, width), {.is_expert = true}),
      down_(prefix + "down", {num_experts, hidden_size, width}, dtype,
            down_pieces(prefix, num_experts, hidden_size, width), {.is_expert = true}) {}

at::Tensor Experts::forward(const at::Tensor& rows, const at::Tensor& probabilities,
                            const std::vector<int64_t>& rows_per_expert, SegmentRun& run) {
  const at::Tensor gate_up = grouped_linear(rows, rows_per_expert, gate_up_, run);
  return grouped_linear(swiglu(gate_up, probabilities, run), rows_per_expert, down_, run);
}

void Experts::visit(const ParameterVisitor& visitor) {
  visitor(gate_up_);
  visitor(down_);
}

}  // namespace moetron
