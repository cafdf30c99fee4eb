#include "moetron/autograd/parameter.h"

#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"

namespace moetron {
namespace {

int64_t product(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  return strides;
}

}  // namespace

at::Tensor StorageBox::view(const at::Tensor& storage) const {
  return storage.as_strided(sizes, strides, storage.storage_offset() + offset);
}

ParameterPiece piece_of_rows(std::string name, std::vector<int64_t> global_shape, int64_t row,
                             int64_t row_size) {
  StorageBox box{global_shape, contiguous_strides(global_shape), row * row_size};
  std::vector<int64_t> begin(global_shape.size(), 0);
  return {std::move(name), std::move(global_shape), std::move(begin), std::move(box)};
}

Parameter::Parameter(std::string name, std::vector<int64_t> shape, at::ScalarType dtype,
                     ParameterSettings settings)
    : Parameter(name, shape, dtype, {piece_of_rows(name, shape, 0, 0)}, settings) {}

Parameter::Parameter(std::string label, std::vector<int64_t> shape, at::ScalarType dtype,
                     std::vector<ParameterPiece> pieces, ParameterSettings settings)
    : label_(std::move(label)), settings_(settings), pieces_(std::move(pieces)) {
  value_ = at::zeros(shape, at::TensorOptions().dtype(dtype));
  int64_t covered = 0;
  for (const ParameterPiece& piece : pieces_) covered += product(piece.box.sizes);
  MT_CHECK(covered == value_.numel(), label_, ": pieces cover ", covered, " of ", value_.numel(),
           " elements");
}

at::Tensor& Parameter::grad() {
  if (!grad_.defined()) grad_ = at::zeros(value_.sizes(), value_.options().dtype(at::kFloat));
  return grad_;
}

void Parameter::tie_to(Parameter& owner) {
  MT_CHECK(owner.value_.sizes() == value_.sizes(), label_, " cannot be tied to ", owner.label_);
  value_ = owner.value_;
  pieces_.clear();
  tied_to_ = &owner;
}

void Parameter::fold_tied_grad() {
  if (tied_to_ == nullptr || !grad_.defined()) return;
  tied_to_->grad().add_(grad_);
  grad_.zero_();
}

void Parameter::initialize(uint64_t seed, double std) {
  if (is_tied()) return;
  if (settings_.init != Init::kNormal) {
    value_.fill_(settings_.init == Init::kOnes ? 1 : 0);
    return;
  }
  for (const ParameterPiece& piece : pieces_) {
    // Only whole tensors and blocks of whole rows occur: one contiguous range of the named tensor.
    const int64_t row_size = product(piece.global_shape) / piece.global_shape.front();
    const int64_t count = product(piece.box.sizes);
    MT_CHECK(count == piece.box.sizes.front() * row_size, label_, ": a piece splits rows");
    const at::Tensor drawn = at::empty(piece.box.sizes, at::kFloat);
    const std::span<float> values(drawn.data_ptr<float>(), static_cast<size_t>(count));
    const auto first_index = static_cast<uint64_t>(piece.begin.front() * row_size);
    RandomStream(seed, 0, piece.name).fill_normal(values, first_index, static_cast<float>(std));
    piece.box.view(value_).copy_(drawn);
  }
}

std::vector<NamedSlice> Parameter::slices(const at::Tensor& storage,
                                          const std::string& prefix) const {
  std::vector<NamedSlice> named;
  for (const ParameterPiece& piece : pieces_) {
    named.push_back(
        {prefix + piece.name, piece.global_shape, piece.begin, piece.box.view(storage)});
  }
  return named;
}

}  // namespace moetron
