#include "moetron/autograd/parameter.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "moetron/autograd/adapter.h"
#include "moetron/base/error.h"
#include "moetron/base/random.h"

namespace moetron {
namespace {

constexpr int64_t kGrain = int64_t{1} << 14;  // random numbers that are worth a thread

int64_t product(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  return strides;
}

// Evenly in [-bound, bound).
void fill_uniform(const RandomStream& random, std::span<float> values, uint64_t first_index,
                  double bound) {
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>((2 * random.uniform(first_index + i) - 1) * bound);
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

ParameterPiece piece_of_shard(std::string name, std::vector<int64_t> global_shape,
                              const ShardOf& shard, int64_t offset) {
  const int64_t whole = global_shape.at(static_cast<size_t>(shard.dim));
  const int64_t part = (whole + shard.count - 1) / shard.count;
  const int64_t first = std::min(whole, shard.index * part);
  std::vector<int64_t> sizes = global_shape;
  sizes[static_cast<size_t>(shard.dim)] = std::min(part, whole - first);
  std::vector<int64_t> begin(global_shape.size(), 0);
  begin[static_cast<size_t>(shard.dim)] = first;
  StorageBox box{sizes, contiguous_strides(sizes), offset};
  return {std::move(name), std::move(global_shape), std::move(begin), std::move(box)};
}

Parameter::Parameter(std::string name, std::vector<int64_t> shape, const at::TensorOptions& options,
                     ParameterSettings settings)
    : Parameter(name, shape, options, {piece_of_rows(name, shape, 0, 0)}, settings) {}

Parameter::Parameter(std::string label, std::vector<int64_t> shape,
                     const at::TensorOptions& options, std::vector<ParameterPiece> pieces,
                     ParameterSettings settings)
    : label_(std::move(label)), settings_(settings), pieces_(std::move(pieces)) {
  std::erase_if(pieces_, [](const ParameterPiece& piece) { return product(piece.box.sizes) == 0; });
  value_ = at::zeros(shape, options);
  for (const ParameterPiece& piece : pieces_) {
    MT_CHECK(piece.box.strides == contiguous_strides(piece.box.sizes) &&
                 piece.box.offset + product(piece.box.sizes) <= value_.numel(),
             label_, ": the piece ", piece.name, " does not lie in its storage");
  }
}

Parameter::~Parameter() = default;

void Parameter::add_adapter(std::unique_ptr<Adapter> adapter) {
  const at::Tensor &a = adapter->a.value(), &b = adapter->b.value();
  MT_CHECK(a.dim() == value_.dim() && b.dim() == value_.dim() && a.size(-1) == value_.size(-1) &&
               a.size(-2) == b.size(-1) && adapter->first_row + b.size(-2) <= value_.size(-2),
           label_, ": an update of ", b.sizes(), " times ", a.sizes(), " does not fit ",
           value_.sizes());
  adapters_.push_back(std::move(adapter));
}

void Parameter::set_value_storage(const at::Tensor& storage) {
  MT_CHECK(storage.sizes() == value_.sizes() && storage.scalar_type() == value_.scalar_type(),
           label_, ": its value does not fit the new storage");
  const at::NoGradGuard no_grad;
  at::Tensor target = storage;
  target.copy_(value_);
  value_.set_data(target);  // the same TensorImpl, so that a tied use follows
  value_changed();
}

void Parameter::freeze() {
  MT_CHECK(!is_tied(), label_, " is a use of ", is_tied() ? tied_to_->label_ : label_,
           ", which alone can be frozen");
  MT_CHECK(!grad_.defined(), label_, " has a gradient already");
  settings_.role = Role::kFrozen;
}

uint64_t Parameter::version() const {
  const uint64_t changes = is_tied() ? tied_to_->num_changes_ : num_changes_;
  return static_cast<uint64_t>(value_._version()) + changes;
}

const std::vector<at::Tensor>& Parameter::derived(Derived what, const Make& make) {
  Kept& kept = derived_[what];
  if (kept.tensors.empty() || kept.version != version()) {
    kept = {};  // before the next one is made
    kept = {make(value_), version()};
  }
  return kept.tensors;
}

Fp8Weight Parameter::quantised() {
  MT_CHECK(fp8_.has_value(), label_, " is not multiplied in 8 bits");
  const auto& kept = derived(Derived::kFp8, [this](const at::Tensor& value) {
    const auto [blocks, turned] = quantise_weight(value, fp8_->values);
    return std::vector{blocks.values, blocks.scales, turned.values, turned.scales};
  });
  return {.blocks = {kept[0], kept[1]}, .turned = {kept[2], kept[3]}};
}

at::Tensor& Parameter::grad() {
  MT_CHECK(needs_grad(), label_, " has no gradient");
  if (!grad_.defined()) grad_ = at::zeros(value_.sizes(), value_.options().dtype(at::kFloat));
  if (is_grad_stale_) grad_.zero_();
  is_grad_stale_ = false;
  return grad_;
}

Parameter::GradTarget Parameter::grad_target() {
  MT_CHECK(needs_grad(), label_, " has no gradient");
  const bool adds = grad_.defined() && !is_grad_stale_;
  if (!grad_.defined()) grad_ = at::empty(value_.sizes(), value_.options().dtype(at::kFloat));
  is_grad_stale_ = false;
  return {grad_, adds};
}

void Parameter::tie_to(Parameter& owner) {
  MT_CHECK(owner.value_.sizes() == value_.sizes(), label_, " cannot be tied to ", owner.label_);
  value_ = owner.value_;
  pieces_.clear();
  tied_to_ = &owner;
}

void Parameter::fold_tied_grad() {
  if (tied_to_ == nullptr || !grad_.defined()) return;
  tied_to_->grad().add_(grad());
  clear_grad();
}

void Parameter::become_copy() {
  pieces_.clear();
  settings_.role = Role::kCopy;
}

void Parameter::initialize(uint64_t seed, double deviation) {
  if (is_tied()) return;
  if (settings_.init == Init::kOnes || settings_.init == Init::kZeros) {
    value_.fill_(settings_.init == Init::kOnes ? 1 : 0);
    return;
  }
  for (const ParameterPiece& piece : pieces_) {
    MT_CHECK(piece.global_shape.size() == 2, label_, ": only matrices are drawn at random");
    const int64_t rows = piece.box.sizes[0], columns = piece.box.sizes[1];
    const at::Tensor drawn = at::empty(piece.box.sizes, at::kFloat);
    const RandomStream random(seed, 0, piece.name);
    // An element's number in the whole tensor picks its value, so a shard draws what it holds of
    // it.
    const bool whole_rows = columns == piece.global_shape[1];
    const int64_t stretch = whole_rows ? rows * columns : columns;
    for (int64_t begin = 0; begin < rows * columns; begin += stretch) {
      const int64_t row = piece.begin[0] + begin / columns;
      const int64_t first_index = row * piece.global_shape[1] + piece.begin[1];
      at::parallel_for(0, stretch, kGrain, [&](int64_t first, int64_t last) {
        const std::span<float> values(drawn.data_ptr<float>() + begin + first,
                                      static_cast<size_t>(last - first));
        const auto index = static_cast<uint64_t>(first_index + first);
        settings_.init == Init::kFanIn
            ? fill_uniform(random, values, index, 1 / std::sqrt(double(piece.global_shape[1])))
            : random.fill_normal(values, index, static_cast<float>(deviation));
      });
    }
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

namespace {

// Elements [first, last) of a row-major box as boxes: a part of a row, whole rows, a part of a row;
// the parts recursively so in the dimensions behind. Calls visit(begin, sizes) of each.
template <class Visit>
void cut_box(const std::vector<int64_t>& sizes, size_t dim, std::vector<int64_t>& begin,
             int64_t first, int64_t last, const Visit& visit) {
  if (first >= last) return;
  int64_t row_size = 1;
  for (size_t i = dim + 1; i < sizes.size(); ++i) row_size *= sizes[i];
  const int64_t first_row = first / row_size, last_row = (last - 1) / row_size;
  const auto part_of_row = [&](int64_t row, int64_t from, int64_t to) {
    begin[dim] = row;
    cut_box(sizes, dim + 1, begin, from, to, visit);
    begin[dim] = 0;
  };
  const int64_t from = first - first_row * row_size, to = last - last_row * row_size;
  if (first_row == last_row && (from > 0 || to < row_size)) return part_of_row(first_row, from, to);
  const int64_t begin_whole = from > 0 ? first_row + 1 : first_row;
  const int64_t end_whole = to < row_size ? last_row : last_row + 1;
  if (from > 0) part_of_row(first_row, from, row_size);
  if (begin_whole < end_whole) {
    std::vector<int64_t> box(sizes.size(), 1);
    box[dim] = end_whole - begin_whole;
    for (size_t i = dim + 1; i < sizes.size(); ++i) box[i] = sizes[i];
    begin[dim] = begin_whole;
    visit(begin, box);
    begin[dim] = 0;
  }
  if (to < row_size) part_of_row(last_row, 0, to);
}

}  // namespace

std::vector<NamedSlice> Parameter::slices_of_stretch(const at::Tensor& stretch, int64_t begin,
                                                     const std::string& prefix) const {
  std::vector<NamedSlice> named;
  const int64_t end = begin + stretch.numel();
  for (const ParameterPiece& piece : pieces_) {
    const int64_t piece_begin = piece.box.offset;
    const int64_t first = std::max<int64_t>(begin - piece_begin, 0);
    const int64_t last = std::min(end - piece_begin, product(piece.box.sizes));
    int64_t taken = piece_begin + first - begin;  // in the stretch
    std::vector<int64_t> origin(piece.box.sizes.size(), 0);
    cut_box(piece.box.sizes, 0, origin, first, last,
            [&](const std::vector<int64_t>& box_begin, const std::vector<int64_t>& box_sizes) {
              const int64_t count = product(box_sizes);
              std::vector<int64_t> global = piece.begin;
              for (size_t i = 0; i < global.size(); ++i) global[i] += box_begin[i];
              named.push_back({prefix + piece.name, piece.global_shape, std::move(global),
                               stretch.narrow(0, taken, count).view(box_sizes)});
              taken += count;
            });
  }
  return named;
}

}  // namespace moetron
