// moetron compare: two models, tensor by tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "moetron/convert/tensor_source.h"

namespace moetron {

struct CompareSettings {
  // Elements a and b are alike where |a - b| <= max(atol, rtol * max(|a|, |b|)), or where both are
  // the same infinity or no number.
  double atol = 0;
  double rtol = 0;
  int num_threads = 1;
  // Tensors that are compared, of so many: called by one thread at a time.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

struct TensorDifference {
  std::string name;
  uint64_t num_elements = 0;
  uint64_t num_unlike = 0;  // elements
  double max_abs = 0;       // the greatest |a - b|
  double max_rel = 0;       // the greatest |a - b| / max(|a|, |b|)
  double cosine = 1;        // of the two as vectors; 1 where both are zero
};

struct ModelComparison {
  std::vector<TensorDifference> compared;  // of both models, in one shape: the worst first
  std::vector<std::string> missing;        // in the second
  std::vector<std::string> extra;          // in the second alone
  std::vector<std::string> other_shapes;   // "NAME [2, 3] [3, 2]"
  std::vector<std::string> other_dtypes;   // "NAME F32 BF16": told, and no difference by itself

  uint64_t num_unlike() const;  // tensors of `compared`
  bool differs() const;
};

// Reads both models, each a directory (a checkpoint among them) or one safetensors file, a few MiB
// at a time. Elements are compared as doubles; weights in 8 bits with scales beside them, after
// they are multiplied. Types that are no numbers here (F8_E5M2, F8_E8M0, complex ones) are compared
// by their bits. InputError for damaged files.
ModelComparison compare_models(const std::filesystem::path& first,
                               const std::filesystem::path& second,
                               const CompareSettings& settings);

// The `top` worst tensors as a table, what only one model has, and a line that sums up.
std::string describe(const ModelComparison& comparison, int64_t top);

}  // namespace moetron
