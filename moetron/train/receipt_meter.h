// Receipts of bits (metrics/bit_receipt.h) of a training step, the same for every division of the
// tensors among ranks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"
#include "moetron/metrics/bit_receipt.h"
#include "moetron/parallel/gradient_buckets.h"

namespace moetron {

class Communicator;
class Mesh;
class Model;

// What the slice adds to the hash of the whole tensor of its name. A value on a device comes to the
// host for it; whatever its type, its bits are those of the same number in fp32.
uint64_t slice_hash(const NamedSlice& slice);

class ReceiptMeter {
 public:
  // Collective over the mesh. `trained`: of AdamW::trained(), on every rank that holds a copy, or
  // `distributed` among them. What the model does not train is hashed from its values. Tensors are
  // kept.
  ReceiptMeter(const Model& model, Mesh& mesh, const std::vector<OwnedStretch>& trained,
               bool distributed);

  // Hashes what this rank owns of the gradients as they are.
  void take_gradients();
  // The same of the parameters; adds up over the ranks. Collective over the mesh, behind
  // take_gradients() of the same step.
  BitReceipt finish(double loss, double aux_loss);

 private:
  // One of this rank's slices, and where its hash is counted.
  struct Part {
    NamedSlice slice;
    size_t place = 0;  // in the list of names
  };

  static void give_places(std::vector<Part>& parts, const std::vector<std::string>& names);
  void hash(const std::vector<Part>& parts, size_t offset);

  Communicator& world_;
  std::vector<Part> gradients_, parameters_;
  std::vector<std::string> gradient_names_, parameter_names_;  // of all ranks, in their order
  at::Tensor sums_;  // [gradients + parameters] int64, on the host
};

}  // namespace moetron
