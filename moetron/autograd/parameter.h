// Parameters (DESIGN: ideas 3, and section 4 "Parameters and gradients"). A parameter's storage is
// a list of pieces, each a slice of a tensor that has a Hugging Face name: fused, stacked and
// sharded weights are just several pieces. Parameters never require grad: operations add to their
// fp32 accumulators.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

// A strided box of a storage: what one piece occupies. The same box fits every tensor of the
// storage's shape (value, gradient, optimizer moments).
struct StorageBox {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t offset = 0;  // in elements

  at::Tensor view(const at::Tensor& storage) const;  // shares memory; storage is contiguous
};

struct ParameterPiece {
  std::string name;                   // Hugging Face name, "model.layers.0.mlp.gate.weight"
  std::vector<int64_t> global_shape;  // of the whole tensor of that name
  std::vector<int64_t> begin;         // where this slice begins, a number a dimension
  StorageBox box;                     // where it lies in the parameter's storage
};

// A slice of a named global tensor and the memory that holds it: what checkpoints read and write.
struct NamedSlice {
  std::string name;
  std::vector<int64_t> global_shape;
  std::vector<int64_t> begin;
  at::Tensor view;  // [slice], possibly strided
};

// How a fresh parameter is filled.
enum class Init { kNormal, kOnes, kZeros };

struct ParameterSettings {
  Init init = Init::kNormal;
  bool weight_decay = true;  // off for norms and biases, as Megatron has it
  bool trainable = true;     // off for buffers that travel with the weights (the router's bias)
  bool is_expert = false;  // replicated over the expert-data-parallel axis instead of the dense one
};

class Parameter {
 public:
  // One piece that is the whole tensor `name`.
  Parameter(std::string name, std::vector<int64_t> shape, at::ScalarType dtype,
            ParameterSettings settings);
  // Several pieces in a storage of the given shape; `label` appears in messages only.
  Parameter(std::string label, std::vector<int64_t> shape, at::ScalarType dtype,
            std::vector<ParameterPiece> pieces, ParameterSettings settings);
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  const std::string& label() const { return label_; }
  const ParameterSettings& settings() const { return settings_; }
  const std::vector<ParameterPiece>& pieces() const { return pieces_; }
  bool is_tied() const { return tied_to_ != nullptr; }

  at::Tensor& value() { return value_; }
  const at::Tensor& value() const { return value_; }

  // The fp32 accumulator, of the value's shape; made (zero) at first use.
  at::Tensor& grad();
  bool has_grad() const { return grad_.defined(); }
  // Lets the accumulator live in a caller's buffer (gradient buckets). `storage`: fp32, value's
  // shape.
  void set_grad_storage(const at::Tensor& storage) { grad_ = storage; }

  // Makes this a second use of `owner`: the value is shared, the accumulator is its own and is
  // added to the owner's once, by fold_tied_grad(). A tied parameter has no pieces: it is stored
  // with its owner.
  void tie_to(Parameter& owner);
  void fold_tied_grad();

  // Fills every piece from the random stream (seed, step 0, piece name): layout does not matter.
  void initialize(uint64_t seed, double std);

  // The pieces as slices of `storage`, which has the value's shape; `prefix` goes before each name.
  std::vector<NamedSlice> slices(const at::Tensor& storage, const std::string& prefix = "") const;

 private:
  std::string label_;
  ParameterSettings settings_;
  std::vector<ParameterPiece> pieces_;
  at::Tensor value_;
  at::Tensor grad_;
  Parameter* tied_to_ = nullptr;
};

// A piece that is rows [row, row + global_shape[0]) of a storage with `row_size` elements a row:
// the way fused projections are laid out.
ParameterPiece piece_of_rows(std::string name, std::vector<int64_t> global_shape, int64_t row,
                             int64_t row_size);

}  // namespace moetron
