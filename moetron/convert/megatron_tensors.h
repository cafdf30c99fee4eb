// Which Hugging Face tensors a parameter of Megatron-core is made of, on any rank: one table, by
// which weights are written and read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "moetron/arch/inventory.h"
#include "moetron/convert/megatron_layout.h"

namespace moetron {

// Rows of a parameter that are a rectangle of a Hugging Face tensor. A tensor of one dimension has
// columns of one element.
struct TensorPiece {
  size_t tensor = 0;  // index in the inventory
  int64_t row = 0;    // of the tensor
  int64_t rows = 0;
  int64_t column = 0;  // of the tensor; the parameter has these columns alone
  int64_t columns = 0;
  // Of legacy experts: element (r, c) of the rectangle is element begin + c * stride + r of the
  // parameter.
  bool transposed = false;
  int64_t begin = 0;
  int64_t stride = 0;
};

struct MegatronTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<TensorPiece> pieces;  // one below the other; rows that are left are zero
};

// Elements of a row.
int64_t num_columns(const std::vector<int64_t>& shape);

// The inventory of a model with places by name.
class MegatronModel {
 public:
  // `layout` has passed check_layout().
  MegatronModel(const ModelConfig& config, const MegatronLayout& layout, MtpTensors mtp);

  const std::vector<TensorInfo>& inventory() const { return inventory_; }
  // Of a tensor that Hugging Face stores once more than Megatron (embedding and head of multi-token
  // prediction) the one that it is a copy of; of any other itself.
  size_t original(size_t tensor) const { return originals_[tensor]; }
  const MegatronLayout& layout() const { return layout_; }
  // The parameters of a rank's chunk, under Megatron's names.
  std::vector<MegatronTensor> chunk(const MegatronRank& rank, int64_t chunk) const;

 private:
  friend class ChunkBuilder;

  ModelConfig config_;
  MegatronLayout layout_;
  MtpTensors mtp_;
  std::vector<TensorInfo> inventory_;
  std::vector<size_t> originals_;
  std::map<std::string, size_t, std::less<>> places_;
};

// Modules of such parameters whose state Megatron keeps beside them ("..._extra_state"), and which
// it demands when it loads: None says that there is nothing to restore.
std::vector<std::string> extra_states(const std::vector<MegatronTensor>& tensors);

}  // namespace moetron
