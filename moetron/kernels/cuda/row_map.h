// Launches of the kernels of row_map.h.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

constexpr int kMostLocalExperts = 1024;

struct RowMapArgs {
  const int64_t* experts;  // [num_choices]
  int64_t first;           // the local experts are [first, first + num_local)
  int num_local;
  int num_choices;
  int alignment;       // of each expert's first row
  int* counts;         // [row_map_chunks(num_choices), num_local], for the kernels' own use
  int* ends;           // [num_local]
  int* choice_of_row;  // [bound], -1 between experts already where alignment is not 1
  int* row_of_choice;  // [num_choices]
};
int64_t row_map_chunks(int64_t num_choices);
void launch_build_row_map(const RowMapArgs& args, cudaStream_t stream);

struct GatherRows {
  const void* hidden;        // [copies, row_bytes]
  const int* row_of_choice;  // [copies, top_k]
  void* rows;                // [num_rows, row_bytes]
  int64_t copies;
  int64_t num_rows;
  int top_k;
  int64_t row_bytes;  // a multiple of element_bytes
  int element_bytes;  // 1, 2 or 4
};
void launch_gather_rows(const GatherRows& args, cudaStream_t stream);

struct SumRows {
  const void* rows;          // [rows, size]
  const int* row_of_choice;  // [copies, top_k]
  void* sums;                // [copies, size]
  int64_t copies;
  int top_k;
  int64_t size;  // elements
  bool is_bf16;  // or fp32
};
void launch_sum_rows(const SumRows& args, cudaStream_t stream);

// to[i] = from[places[i]], zero where the place is negative, for `count` of them.
void launch_gather_choices(const float* from, const int* places, float* to, int64_t count,
                           cudaStream_t stream);

}  // namespace moetron
