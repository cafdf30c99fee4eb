// Launches of the kernels that quantise (fp8.h): E4M3 with scales that are powers of two. All rows
// begin at multiples of 16 bytes.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

// Where rows [rows, size] in 8 bits go.
struct Fp8Output {
  void* values = nullptr;    // [rows, size]
  float* scales = nullptr;   // [tiles of size, rows]
  int64_t scale_stride = 0;  // numbers from row to row of the scales
};

struct Fp8RowsLaunch {
  const void* x;  // bf16 [rows, size]
  Fp8Output output;
  int64_t rows;
  int size;  // a multiple of 8
};
void launch_fp8_rows(const Fp8RowsLaunch& args, cudaStream_t stream);

// A weight, and its transposed of the same numbers.
struct Fp8BlocksLaunch {
  const void* weight;    // bf16 [groups, out, in]
  void* values;          // [groups, out, in]
  float* scales;         // [groups, blocks of out, blocks of in]
  void* turned_values;   // [groups, in, out]
  float* turned_scales;  // [groups, blocks of in, blocks of out]
  int groups, out, in;   // sizes are multiples of 16
};
void launch_fp8_blocks(const Fp8BlocksLaunch& args, cudaStream_t stream);

// Quantised rows as the columns that a weight gradient sums over.
struct Fp8ColumnsLaunch {
  const void* values;   // [rows, size]
  const float* scales;  // [tiles of size, rows]
  int64_t scale_stride;
  const int32_t* ends;   // [groups], on the GPU; null: one group, of all rows
  void* turned_values;   // [size, padded rows]
  float* turned_scales;  // [tiles of size, padded rows / 128]
  int32_t* turned_ends;  // [groups]
  int groups;
  int64_t rows, padded_rows;  // the latter a multiple of 128
  int size;                   // a multiple of 16
};
void launch_fp8_columns(const Fp8ColumnsLaunch& args, cudaStream_t stream);

}  // namespace moetron
