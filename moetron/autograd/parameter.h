// Parameters (DESIGN: ideas 3, and section 4 "Parameters and gradients"). A parameter's storage is
// a list of pieces, each a slice of a tensor that has a Hugging Face name: fused, stacked and
// sharded weights are just several pieces. Parameters never require grad: operations add to their
// fp32 accumulators.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include "moetron/kernels/fp8.h"

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

// How a fresh parameter is filled. kFanIn: evenly within 1 / sqrt(columns) of zero, as PEFT (and
// torch's kaiming_uniform_ with a = sqrt(5)) fills the first factor of a low-rank update.
enum class Init { kNormal, kOnes, kZeros, kFanIn };

// What becomes of a parameter in training.
enum class Role {
  kTrained,  // has a gradient and, on the ranks that update it, optimizer states
  kFrozen,   // is only read: no gradient, no accumulator, no states
  kBuffer,   // travels with the weights and is moved by other means (the router's bias)
  kCopy,     // its owner is on another rank, which stores and updates it: it has a gradient, which
             // goes there, no states and no pieces
};

// Which ranks of a pipeline stage hold the same values of a parameter: its copies over the axes of
// the mesh (parallel/mesh.h has the groups). The gradient of each copy is partial, from its own
// tokens or heads; their sum is the gradient, and the copies divide its optimizer state.
struct ReplicaRule {
  enum class Data {
    kDp,   // the data-parallel ranks: dense parameters
    kEdp,  // the expert-data-parallel ranks: routed experts
  };
  Data data = Data::kDp;  // all ranks along this axis have a copy
  // and so many tensor-parallel ranks in a row; 0: all of them. Of routed experts those that share
  // an expert.
  int64_t tensor_copies = 0;

  auto operator<=>(const ReplicaRule&) const = default;
};

// All ranks of a stage: norms, router.
inline constexpr ReplicaRule kWholeOnEveryRank;
// What the tensor-parallel ranks divide among themselves.
inline constexpr ReplicaRule kTensorDivided{.tensor_copies = 1};
inline constexpr ReplicaRule kExpertDivided{ReplicaRule::Data::kEdp, 1};
// What each of the ranks that share an expert holds whole.
inline constexpr ReplicaRule kExpertWhole{ReplicaRule::Data::kEdp, 0};

struct ParameterSettings {
  Init init = Init::kNormal;
  bool weight_decay = true;  // off for norms and biases, as Megatron has it
  Role role = Role::kTrained;
  ReplicaRule replicas = kWholeOnEveryRank;
};

// What is kept beside a value, computed from it.
enum class Derived {
  kTwiceByRows,  // the value above itself
  kFp8,          // for products in 8 bits
};

struct Adapter;  // autograd/adapter.h

class Parameter {
 public:
  // One piece that is the whole tensor `name`.
  // `options`: dtype and device.
  Parameter(std::string name, std::vector<int64_t> shape, const at::TensorOptions& options,
            ParameterSettings settings);
  // Several pieces in a storage of the given shape; `label` appears in messages only. What no piece
  // covers is padding: it stays zero, and is never stored.
  Parameter(std::string label, std::vector<int64_t> shape, const at::TensorOptions& options,
            std::vector<ParameterPiece> pieces, ParameterSettings settings);
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;
  ~Parameter();

  const std::string& label() const { return label_; }
  const ParameterSettings& settings() const { return settings_; }
  const std::vector<ParameterPiece>& pieces() const { return pieces_; }
  bool is_tied() const { return tied_to_ != nullptr; }
  Role role() const { return settings_.role; }
  // Whether there is a gradient to compute; of a tied use, whether its owner wants it.
  bool needs_grad() const {
    if (is_tied()) return tied_to_->needs_grad();
    return role() == Role::kTrained || role() == Role::kCopy;
  }
  // From now on it is only read. Before anything trains: accumulators and states follow from roles.
  void freeze();

  at::Tensor& value() { return value_; }
  const at::Tensor& value() const { return value_; }

  // Grows with every change of the value that ATen sees, and with value_changed().
  uint64_t version() const;
  // To be called by whoever writes the value's memory by other means than ATen's operators.
  void value_changed() { ++num_changes_; }
  // What `make` computed from the value, kept until the value changes.
  using Make = std::function<std::vector<at::Tensor>(const at::Tensor& value)>;
  const std::vector<at::Tensor>& derived(Derived what, const Make& make);

  // From now on products with this weight are computed in 8 bits.
  void multiply_in_fp8(const Fp8Products& products) { fp8_ = products; }
  const std::optional<Fp8Products>& fp8() const { return fp8_; }
  Fp8Weight quantised();  // only where fp8()

  // Low-rank updates, which products with this weight add. Parameters of their own, which whoever
  // visits this one visits behind it.
  const std::vector<std::unique_ptr<Adapter>>& adapters() const { return adapters_; }
  void add_adapter(std::unique_ptr<Adapter> adapter);

  // The fp32 accumulator, of the value's shape; made (zero) at first use. Only where needs_grad().
  at::Tensor& grad();
  // Whatever was not added to in this step is zero: the accumulator's memory holds the gradient.
  void settle_grad() { grad(); }
  bool has_grad() const { return grad_.defined(); }
  // Makes the accumulator count as zero. Its memory is zeroed only where the next use reads it: a
  // product overwrites it.
  void clear_grad() { is_grad_stale_ = grad_.defined(); }
  // The accumulator for one who computes all of it.
  struct GradTarget {
    at::Tensor sum;
    bool adds;  // to what is there; else it is to be overwritten
  };
  GradTarget grad_target();
  // Lets the accumulator live in a caller's buffer (gradient buckets). `storage`: fp32, value's
  // shape.
  void set_grad_storage(const at::Tensor& storage) {
    grad_ = storage;
    is_grad_stale_ = false;
  }
  // Moves the value into a caller's buffer of the same shape and dtype (parameter buckets); uses
  // that are tied to it follow.
  void set_value_storage(const at::Tensor& storage);

  // Makes this a second use of `owner`: the value is shared, the accumulator is its own and is
  // added to the owner's once, by fold_tied_grad(). A tied parameter has no pieces: it is stored
  // with its owner.
  void tie_to(Parameter& owner);
  void fold_tied_grad();

  // Makes this a copy of a parameter that another rank owns, stores and updates; that rank sends
  // its values, and adds this accumulator to its own.
  void become_copy();

  // Fills every piece from the random stream (seed, step 0, piece name): layout does not matter.
  void initialize(uint64_t seed, double deviation);

  // The pieces as slices of `storage`, which has the value's shape; `prefix` goes before each name.
  std::vector<NamedSlice> slices(const at::Tensor& storage, const std::string& prefix = "") const;
  // The same for a stretch of the storage alone: `stretch` [elements] holds what belongs to the
  // flattened storage's elements [begin, begin + elements). A piece that the stretch cuts within a
  // row gives several slices.
  std::vector<NamedSlice> slices_of_stretch(const at::Tensor& stretch, int64_t begin,
                                            const std::string& prefix = "") const;

 private:
  std::string label_;
  ParameterSettings settings_;
  std::vector<ParameterPiece> pieces_;
  at::Tensor value_;
  at::Tensor grad_;
  uint64_t num_changes_ = 0;
  struct Kept {
    std::vector<at::Tensor> tensors;
    uint64_t version = 0;
  };
  std::map<Derived, Kept> derived_;
  std::optional<Fp8Products> fp8_;
  std::vector<std::unique_ptr<Adapter>> adapters_;
  bool is_grad_stale_ = false;
  Parameter* tied_to_ = nullptr;
};

// A piece that is rows [row, row + global_shape[0]) of a storage with `row_size` elements a row:
// the way fused projections are laid out.
ParameterPiece piece_of_rows(std::string name, std::vector<int64_t> global_shape, int64_t row,
                             int64_t row_size);

// Which part of a tensor a rank holds: part `index` of `count` equal ones along `dim`.
struct ShardOf {
  int64_t dim = 0;
  int64_t index = 0;
  int64_t count = 1;
};

// The piece that is a shard of a tensor, contiguous in the storage from element `offset`. The last
// shards of a dimension that `count` does not divide are short or empty: parts have
// ceil(size / count).
ParameterPiece piece_of_shard(std::string name, std::vector<int64_t> global_shape,
                              const ShardOf& shard, int64_t offset);

}  // namespace moetron
