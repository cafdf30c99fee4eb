// Tensors of a model that a run does not train, and that its checkpoints hold as they were: the
// layers of multi-token prediction.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "moetron/autograd/parameter.h"
#include "moetron/checkpoint/stored_model.h"

namespace moetron {

class StoredWeights;

class CarriedTensors {
 public:
  CarriedTensors();
  // Of the weights in `folder` those of layers [first, first + count), of which this rank brings
  // its share, every `num_ranks`th. In their own types, out of the files where these are mapped,
  // for as long as this lives; matrices in 8 bits become bf16, in memory. InputError as
  // open_weights(), and for a type that checkpoints do not hold.
  CarriedTensors(const std::filesystem::path& folder, const StoredModel& stored, int64_t first,
                 int64_t count, int rank, int num_ranks);
  CarriedTensors(CarriedTensors&&) noexcept;
  CarriedTensors& operator=(CarriedTensors&&) noexcept;
  ~CarriedTensors();

  // How many layers all ranks have together: 0 where the files hold none of them.
  int64_t num_layers() const { return num_layers_; }
  const std::vector<NamedSlice>& slices() const { return slices_; }

 private:
  std::unique_ptr<StoredWeights> stored_;
  std::vector<NamedSlice> slices_;
  int64_t num_layers_ = 0;
};

}  // namespace moetron
