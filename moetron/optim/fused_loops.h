// The inner loops of the optimizer on raw pointers: one pass over memory, vectorised by the
// compiler. Torch is not needed here, so that this one unit can be compiled with flags of its own.
#pragma once

#include <cstdint>

#include "moetron/kernels/adamw_arguments.h"

namespace moetron {

// The vectors of a loop. The result has the same bits with each.
enum class VectorWidth { kBaseline, kAvx2, kAvx512 };
VectorWidth widest_vectors();  // of this processor

// No two of the arrays overlap. `width`: at most widest_vectors().
void adamw_update(const AdamWPointers& pointers, int64_t count, const AdamWCoefficients& c,
                  VectorWidth width = widest_vectors());

// A sum with what rounding took from it: twice the digits, so that the order of adding shows in
// `sum + rest` as good as never (T. J. Dekker, "A floating-point technique for extending the
// available precision", 1971).
struct CarriedSum {
  double sum = 0;
  double rest = 0;

  void add(double value);
  void add(const CarriedSum& other);
};

// Squares of fp32 numbers are exact in fp64.
CarriedSum sum_of_squares(const float* values, int64_t count);

}  // namespace moetron
