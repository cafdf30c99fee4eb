// What the tests of this folder share: a model with optimizer state, and how it is saved.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/save_plan.h"

namespace moetron {

// A trainer.json of that step.
std::string trainer_text(int64_t step);

// Plans, borrows and writes at once, as a training run without background saves does. A content
// without trainer.json gets one of the step.
std::filesystem::path save_checkpoint(const std::filesystem::path& save, int64_t step,
                                      const CheckpointContent& content, Communicator* world,
                                      const SaveSettings& settings = {});

// Named tensors of some KiB, filled from a seed: two plain weights, one fused pair, and for each
// the moments (and masters, where the weights are not fp32) that an optimizer would keep.
class TinyModel {
 public:
  explicit TinyModel(uint64_t seed, at::ScalarType dtype = at::kFloat);

  std::vector<NamedSlice> weights() const;
  std::vector<NamedSlice> states() const;
  CheckpointContent content() const;  // without trainer.json

  // Moves masters away from what the weights' type can hold.
  void train(double amount);

  at::Tensor weight(const std::string& name) const;
  at::Tensor state(const std::string& name) const;
  bool equals(const TinyModel& other) const;  // all weights and states, bit by bit

 private:
  struct Entry {
    std::unique_ptr<Parameter> parameter;
    at::Tensor exp_avg, exp_avg_sq, master;
  };
  std::vector<Entry> entries_;
};

}  // namespace moetron
