// Models whose linear layers are stored in 8 bits with scales beside them (formats/fp8_blocks.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "moetron/convert/tensor_source.h"

namespace moetron {

// Whether any tensor has scales beside it.
bool has_scales(const TensorSource& source);

// The model without its scales: matrices that have some are F32 here, each element its 8 bits times
// the scale of its block, and the rest is as it is.
class Fp8Source : public TensorSource {
 public:
  // `source` outlives this; `place` begins complaints. InputError for scales without a matrix in 8
  // bits or of another shape than it needs, and for a matrix in 8 bits without scales.
  Fp8Source(const TensorSource& source, std::string place);

  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override;

 private:
  struct Place {
    size_t weight = 0;            // in the source
    std::optional<size_t> scale;  // likewise; empty: it is as it is
  };

  const TensorSource& source_;
  std::string place_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<Place> places_;
};

// Whether DeepSeek's releases store a tensor in 8 bits: the matrices of attention, MLPs and
// experts, also those of multi-token prediction; not embeddings, heads, norms and routers.
bool is_stored_in_8_bits(const SafetensorsTensor& tensor);

// The reverse: the matrices that are stored in 8 bits become F8_E4M3, each with a tensor of scales;
// the rest is as it is. Scales are computed whenever they are needed, so that nothing of the model
// is held.
class Fp8Target : public TensorSource {
 public:
  // `source` outlives this, and is not in 8 bits. InputError where it holds a name that a tensor of
  // scales would get.
  explicit Fp8Target(const TensorSource& source);

  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  // InputError for a matrix with an element that is not finite.
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override;

 private:
  enum class Kind { kAsItIs, kBits, kScales };
  struct Place {
    size_t source = 0;
    Kind kind = Kind::kAsItIs;
  };
  // A row of blocks: its first row in the matrix, its values and their scales.
  struct Band {
    uint64_t first_row = 0;
    std::vector<float> values;
    std::vector<float> scales;
  };

  Band read_band(size_t source_index, uint64_t band) const;
  void read_bits(size_t source_index, uint64_t begin, std::span<std::byte> bytes) const;
  void read_scales(size_t source_index, uint64_t begin, std::span<std::byte> bytes) const;

  const TensorSource& source_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<Place> places_;
};

}  // namespace moetron
