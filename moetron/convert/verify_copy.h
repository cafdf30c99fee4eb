// Whether what was written is what it was made of.
#pragma once

#include <cstdint>
#include <functional>

#include "moetron/convert/tensor_source.h"

namespace moetron {

// Throws InputError naming the tensor unless both hold the same tensors with the same bits. Reads
// both whole, a few MiB at a time in each of the threads. `progress`: as in WriteSettings.
void verify_copy(const TensorSource& source, const TensorSource& copy, int num_threads,
                 const std::function<void(uint64_t done, uint64_t total)>& progress = {});

}  // namespace moetron
