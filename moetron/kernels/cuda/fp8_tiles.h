// Which tiles of the result each cluster of blocks computes, of products in groups too.
#pragma once

#include <cstdint>

#include "moetron/kernels/cuda/fp8_product.h"

namespace moetron {

constexpr int kFp8Size = 128;  // of a tile's columns, and of what is summed at a time

// The number of a warp's first thread. It tells the compiler that all have the same, which then
// keeps it, and what follows from it, out of the threads' own registers: a tenth of the time.
__device__ __forceinline__ int uniform(int x) {
  return __shfl_sync(0xffffffff, x, 0);
}

struct Fp8Tile {
  int group = 0;
  int row = 0, row_begin = 0, row_end = 0;  // the first of a; those of the group
  int column = 0;                           // the first of the group's n
  int k_block = 0, num_k_blocks = 0;        // of 128 of what is summed
};

// The tiles of a cluster, one after the other: those in flight together make a square.
template <class Kernel>
class Fp8Tiles {
 public:
  __device__ Fp8Tiles(const Fp8Gemm& gemm, int cluster, int num_clusters, int rank)
      : gemm_(gemm), index_(cluster), step_(num_clusters), rank_(rank) {
    pairs_ = (gemm.n + 2 * kFp8Size - 1) / (2 * kFp8Size);
    begin_group();
  }

  __device__ bool next(Fp8Tile& tile) {
    while (index_ >= m_blocks_ * pairs_) {
      index_ -= m_blocks_ * pairs_;
      first_ = end_;
      if (++group_ >= gemm_.num_groups) return false;
      begin_group();
    }
    constexpr int kBand = 1024 / Kernel::kRows;  // rows of tiles
    const int band = index_ / (kBand * pairs_);
    const int rows = min(kBand, m_blocks_ - band * kBand);
    const int within = index_ - band * kBand * pairs_;
    const int m_block = band * kBand + within % rows;
    tile.group = group_;
    tile.column = (within / rows * 2 + rank_) * kFp8Size;
    if constexpr (Kernel::kWeightGrad) {
      tile.row = m_block * Kernel::kRows;
      tile.row_end = gemm_.m;
      tile.k_block = first_ / kFp8Size;
      tile.num_k_blocks = (end_ - first_ + kFp8Size - 1) / kFp8Size;
    } else {
      tile.row = aligned_first() + m_block * Kernel::kRows;
      tile.row_begin = first_;
      tile.row_end = end_;
      tile.k_block = 0;
      tile.num_k_blocks = (gemm_.k + kFp8Size - 1) / kFp8Size;
    }
    index_ += step_;
    return true;
  }

 private:
  // Where 16 bytes of scales begin, as their copies must.
  __device__ int aligned_first() const { return first_ & ~3; }

  __device__ void begin_group() {
    end_ = Kernel::kWeightGrad ? gemm_.k : gemm_.m;
    if (gemm_.ends) end_ = uniform(__ldg(gemm_.ends + group_));
    const int rows = Kernel::kWeightGrad ? gemm_.m : (end_ > first_ ? end_ - aligned_first() : 0);
    m_blocks_ = (rows + Kernel::kRows - 1) / Kernel::kRows;
  }

  const Fp8Gemm& gemm_;
  int index_, step_, rank_;
  int pairs_ = 0, group_ = 0, first_ = 0, end_ = 0, m_blocks_ = 0;
};

}  // namespace moetron
