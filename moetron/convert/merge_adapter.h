// A model with an adapter's low-rank updates added to its weights.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "moetron/arch/adapter_config.h"
#include "moetron/convert/tensor_source.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

// W + scale B A in fp32, rounded once to W's type; tensors without an update as they are. Experts
// may be one tensor each or stacked as transformers 5 holds them.
class MergedWeights final : public TensorSource {
 public:
  // `adapter`: a PEFT adapter's folder; the base outlives this. InputError where the base is in 8
  // bits, where shapes do not fit, and where the adapter has a tensor that belongs to no weight.
  MergedWeights(const TensorSource& base, const AdapterConfig& config,
                const std::filesystem::path& adapter);

  const std::vector<SafetensorsTensor>& tensors() const override { return base_.tensors(); }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override;

 private:
  // Of one tensor. A [experts * rank, in], B [rows, rank * experts] with the expert fastest.
  struct Update {
    const SafetensorsEntry* a = nullptr;
    const SafetensorsEntry* b = nullptr;
    int64_t num_experts = 1;
    int64_t first_expert = 0;  // of the tensor's first rows
    int64_t rows_of_expert = 0;
    int64_t first_row = 0;  // in B, of each expert's rows
  };
  // The factors of one expert as floats.
  struct Factors;

  std::optional<Update> find_update(const SafetensorsTensor& weight) const;
  void check_shapes(const SafetensorsTensor& weight, const Update& update) const;
  Factors factors(const Update& update, int64_t expert, int64_t first_row, int64_t num_rows) const;

  const TensorSource& base_;
  LoraConfig lora_;
  SafetensorsFile file_;
  std::vector<std::optional<Update>> updates_;  // by tensor
};

}  // namespace moetron
