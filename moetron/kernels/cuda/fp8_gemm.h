// Products of FP8 factors with scales on Hopper's tensor cores: d = a b^T, each factor with a scale
// for every 128 of what is summed. The tensor cores' sums keep about 14 bits, so each 128 products
// are added up there and then, scaled, in fp32 registers.
#pragma once

#include <cstdint>
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <utility>

#include "cute/arch/cluster_sm90.hpp"
#include "cute/arch/copy_sm90.hpp"
#include "cute/arch/copy_sm90_tma.hpp"
#include "cute/arch/mma_sm90_gmma.hpp"
#include "cutlass/arch/barrier.h"
#include "cutlass/arch/reg_reconfig.h"
#include "moetron/kernels/cuda/fp8_tiles.h"

namespace moetron {

// A cluster of two blocks computes two tiles of 128 x 128 beside each other: each loads half of
// their rows of a for both. A block has two warp groups that multiply 64 rows each, and one that
// loads.
template <bool kWeightGrad_>
struct Fp8Kernel {
  // b's scales by row, not by block; groups divide what is summed; the result is fp32.
  static constexpr bool kWeightGrad = kWeightGrad_;
  static constexpr int kSize = 128, kDepth = 128, kStages = 6;
  static constexpr int kTileBytes = kSize * kDepth, kScaleBytes = kSize * 4;
  static constexpr int kLoadedBytes = 2 * kTileBytes + (kWeightGrad ? 2 : 1) * kScaleBytes;
  // Swizzled tiles begin at multiples of 1024 bytes.
  static constexpr int kStageBytes = 2 * kTileBytes + 2 * kScaleBytes;
  static constexpr int kWarpRows = 16, kStoreBytes = kWeightGrad ? 0 : 8 * kWarpRows * 128;
  static constexpr int kSharedBytes = 1024 + kStages * kStageBytes + kStoreBytes + kStages * 16;
  static constexpr int kThreads = 384;
};

// Where a tile lies in shared memory, in rows of 128 swizzled bytes, as the tensor cores are told
// it: the half of the word that counts 16 bytes.
__device__ __forceinline__ uint32_t tile_place(const char* tile) {
  return cute::cast_smem_ptr_to_uint(tile) >> 4 | 1u << 16;
}

__device__ __forceinline__ uint64_t tile_descriptor(uint32_t place) {
  constexpr uint32_t kSwizzledRows = 1u << 30 | 1024 >> 4;
  uint64_t descriptor;
  asm("mov.b64 %0, {%1, %2};" : "=l"(descriptor) : "r"(place), "n"(kSwizzledRows));
  return descriptor;
}

// A thread's part of 64 x 128 sums: for each eight columns two neighbours in each of two rows.
using Fp8Sums = float[64];

template <size_t... kIndices>
__device__ __forceinline__ void multiply_once(uint64_t a, uint64_t b, Fp8Sums& sums, bool adds,
                                              std::index_sequence<kIndices...>) {
  using Mma = cute::SM90::GMMA::MMA_64x128x32_F32E4M3E4M3_SS_TN<>;
  Mma::fma(a, b, sums[kIndices]...,
           adds ? cute::SM90::GMMA::ScaleOut::One : cute::SM90::GMMA::ScaleOut::Zero);
}

__device__ __forceinline__ void fence(Fp8Sums& sums) {
#pragma unroll
  for (int i = 0; i < 64; ++i) cute::warpgroup_fence_operand(sums[i]);
}

// Begins sums = a b^T over 128.
__device__ __forceinline__ void begin_multiply(uint32_t a, uint32_t b, Fp8Sums& sums) {
  fence(sums);
  cute::warpgroup_arrive();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    multiply_once(tile_descriptor(a + 2 * i), tile_descriptor(b + 2 * i), sums, i > 0,
                  std::make_index_sequence<64>());
  }
  cute::warpgroup_commit_batch();
  fence(sums);
}

// Of the factors [m, k] and [groups * n, k], and of scales [k / 128, m] and [k / 128, n].
struct Fp8Maps {
  CUtensorMap a, b, a_scales, b_scales;
};

// Of one warp: fills the stages, each as soon as both blocks of the cluster have done with it.
template <class Kernel>
__device__ void load_tiles(const Fp8Gemm& gemm, const Fp8Maps& maps, Fp8Tiles<Kernel> tiles,
                           char* stages, uint64_t* full, uint64_t* empty, int rank) {
  using Full = cutlass::arch::ClusterTransactionBarrier;
  constexpr auto kKeep = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  int stage = 0;
  uint32_t phase = 0;
  Fp8Tile tile;
  while (tiles.next(tile)) {
#pragma unroll 1
    for (int i = 0; i < tile.num_k_blocks; ++i) {
      const int k_block = tile.k_block + i, k = k_block * Kernel::kDepth;
      char* a = stages + stage * Kernel::kStageBytes;
      char* b = a + Kernel::kTileBytes;
      char* a_scales = b + Kernel::kTileBytes;
      Full::wait(empty + stage, phase ^ 1);
      if (cute::elect_one_sync()) {
        Full::arrive_and_expect_tx(full + stage, Kernel::kLoadedBytes);
        cute::SM90_TMA_LOAD_MULTICAST_2D::copy(&maps.a, full + stage, 3, kKeep,
                                               a + rank * (Kernel::kTileBytes / 2), k,
                                               tile.row + rank * (Kernel::kSize / 2));
        cute::SM90_TMA_LOAD_2D::copy(&maps.b, full + stage, kKeep, b, k,
                                     (Kernel::kWeightGrad ? 0 : tile.group * gemm.n) + tile.column);
        cute::SM90_TMA_LOAD_2D::copy(&maps.a_scales, full + stage, kKeep, a_scales, tile.row,
                                     k_block);
        if constexpr (Kernel::kWeightGrad) {
          cute::SM90_TMA_LOAD_2D::copy(&maps.b_scales, full + stage, kKeep,
                                       a_scales + Kernel::kScaleBytes, tile.column, k_block);
        }
      }
      __syncwarp();
      if (++stage == Kernel::kStages) {
        stage = 0;
        phase ^= 1;
      }
    }
  }
}

// The scales of a thread's sums: of its two rows, and of b's block or of its columns.
struct Fp8Scales {
  float upper = 0, lower = 0;
  const float* columns = nullptr;
};

template <bool kByColumn>
__device__ __forceinline__ void promote(Fp8Sums& totals, const Fp8Sums& sums,
                                        const Fp8Scales& scales) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    float2 column = make_float2(1, 1);
    if (kByColumn) column = *reinterpret_cast<const float2*>(scales.columns + 8 * i);
    totals[4 * i] += scales.upper * column.x * sums[4 * i];
    totals[4 * i + 1] += scales.upper * column.y * sums[4 * i + 1];
    totals[4 * i + 2] += scales.lower * column.x * sums[4 * i + 2];
    totals[4 * i + 3] += scales.lower * column.y * sums[4 * i + 3];
  }
}

__device__ __forceinline__ uint32_t pack_bf16(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// A warp's 16 rows by way of shared memory, so that it writes whole rows of 128 bytes.
__device__ __forceinline__ void store_bf16(const Fp8Sums& total, char* buffer,
                                           __nv_bfloat16* result, int row, const Fp8Tile& tile,
                                           int n) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int part = 0; part < 2; ++part) {  // 64 columns
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // 16 of them
      const float* x = total + 32 * part + 8 * i;
      const int of_row = (lane / 8 % 2) * 8 + lane % 8, chunk = 2 * i + lane / 16;
      auto* target =
          reinterpret_cast<cute::uint128_t*>(buffer + of_row * 128 + (chunk ^ (of_row % 8)) * 16);
      cute::SM90_U32x4_STSM_N::copy(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]),
                                    pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]), *target);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int of_row = 4 * i + lane / 8, chunk = lane % 8;
      const uint4 values =
          *reinterpret_cast<const uint4*>(buffer + of_row * 128 + (chunk ^ (of_row % 8)) * 16);
      const int at = tile.column + 64 * part + 8 * chunk, at_row = row + of_row;
      if (at_row >= tile.row_begin && at_row < tile.row_end && at < n) {
        *reinterpret_cast<uint4*>(result + int64_t{at_row} * n + at) = values;
      }
    }
    __syncwarp();
  }
}

template <bool kAdds>
__device__ __forceinline__ void store_fp32(const Fp8Sums& total, float* result, int row,
                                           int row_end, int column, int n) {
  const int upper = row + static_cast<int>(threadIdx.x) % 32 / 4;
  const int first = column + static_cast<int>(threadIdx.x) % 4 * 2;
  float* target = result + int64_t{upper} * n + first;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 pair = make_float2(total[4 * i + 2 * half], total[4 * i + 2 * half + 1]);
      auto* place = reinterpret_cast<float2*>(target + int64_t{8 * half} * n + 8 * i);
      if (upper + 8 * half < row_end && first + 8 * i < n) {
        if (kAdds) {
          atomicAdd(place, pair);  // one writer: not for its order, but since it waits for nothing
        } else {
          *place = pair;
        }
      }
    }
  }
}

// Where the loaded stages are, and which of them is next.
template <class Kernel>
struct Fp8Pipeline {
  char* stages;
  uint64_t* full;
  uint64_t* empty;
  uint32_t a_place, b_place;  // of the first stage, for this warp group
  int stage = 0;
  uint32_t phase = 0;

  __device__ void advance() {
    if (++stage == Kernel::kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
  __device__ void wait_full() const { cutlass::arch::ClusterBarrier::wait(full + stage, phase); }
  // Of a warp, to the blocks that loaded it.
  __device__ void release(int of_stage) const {
    const uint32_t lane = threadIdx.x % 32;
    if (lane < 2) cutlass::arch::ClusterBarrier::arrive(empty + of_stage, lane, 1);
  }
};

// A warp group's way through the stages of one tile.
template <class Kernel>
class Fp8TileSums {
 public:
  __device__ __forceinline__ Fp8TileSums(const Fp8Gemm& gemm, const Fp8Tile& tile,
                                         Fp8Pipeline<Kernel>& pipeline)
      : pipeline_(pipeline), oldest_(pipeline.stage), last_(tile.num_k_blocks - 1) {
    if constexpr (!Kernel::kWeightGrad) {
      const int k_blocks = (gemm.k + Kernel::kDepth - 1) / Kernel::kDepth;
      const int n_blocks = (gemm.n + Kernel::kDepth - 1) / Kernel::kDepth;
      const int block = min(tile.column / Kernel::kDepth, n_blocks - 1);
      block_scales_ = gemm.b.scales + int64_t{tile.group * n_blocks + block} * k_blocks;
      block_scale_ = __ldg(block_scales_);
    }
  }

  // Begins to multiply the next 128, as soon as they are there.
  __device__ __forceinline__ void begin(Fp8Sums& sums) {
    pipeline_.wait_full();
    const uint32_t of_stage = pipeline_.stage * (Kernel::kStageBytes / 16);
    begin_multiply(pipeline_.a_place + of_stage, pipeline_.b_place + of_stage, sums);
    pipeline_.advance();
  }

  // Adds the oldest that were begun, of which kLater may go on, and gives their stage back.
  template <int kLater>
  __device__ __forceinline__ void add(Fp8Sums& sums, Fp8Sums& totals) {
    cute::warpgroup_wait<kLater>();
    fence(sums);
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    const auto* a_scales = reinterpret_cast<const float*>(
        pipeline_.stages + oldest_ * Kernel::kStageBytes + 2 * Kernel::kTileBytes);
    const Fp8Scales scales{.upper = a_scales[row] * block_scale_,
                           .lower = a_scales[row + 8] * block_scale_,
                           .columns = a_scales + 128 + lane % 4 * 2};
    if constexpr (!Kernel::kWeightGrad) {
      block_scale_ = __ldg(block_scales_ + min(++k_block_, last_));
      __syncwarp();
      pipeline_.release(oldest_);  // nothing of the stage is read any more
    }
    promote<Kernel::kWeightGrad>(totals, sums, scales);
    if constexpr (Kernel::kWeightGrad) {
      __syncwarp();
      pipeline_.release(oldest_);
    }
    if (++oldest_ == Kernel::kStages) oldest_ = 0;
  }

 private:
  Fp8Pipeline<Kernel>& pipeline_;
  int oldest_, last_, k_block_ = 0;
  const float* block_scales_ = nullptr;
  float block_scale_ = 1;
};

// While the tensor cores sum one 128, the one before is scaled and added up. The loop has no
// branches: between them the compiler would wait for all that was begun.
template <class Kernel>
__device__ __forceinline__ void multiply_tile(const Fp8Gemm& gemm, const Fp8Tile& tile,
                                              Fp8Pipeline<Kernel>& pipeline, Fp8Sums& totals) {
  Fp8TileSums<Kernel> of_tile(gemm, tile, pipeline);
  Fp8Sums even, odd;
  of_tile.begin(even);
  int left = tile.num_k_blocks;
  for (; left > 2; left -= 2) {
    of_tile.begin(odd);
    of_tile.template add<1>(even, totals);
    of_tile.begin(even);
    of_tile.template add<1>(odd, totals);
  }
  if (left == 2) {
    of_tile.begin(odd);
    of_tile.template add<1>(even, totals);
    of_tile.template add<0>(odd, totals);
  } else {
    of_tile.template add<0>(even, totals);
  }
}

template <class Kernel>
__device__ void multiply_tiles(const Fp8Gemm& gemm, Fp8Tiles<Kernel> tiles, char* stages,
                               char* store_buffer, uint64_t* full, uint64_t* empty) {
  const int warp = threadIdx.x / 32;
  const int group = uniform(warp / 4);
  Fp8Pipeline<Kernel> pipeline{.stages = stages,
                               .full = full,
                               .empty = empty,
                               .a_place = tile_place(stages + group * 64 * Kernel::kDepth),
                               .b_place = tile_place(stages + Kernel::kTileBytes)};
  Fp8Tile tile;
  while (tiles.next(tile)) {
    if (tile.row + group * 64 >= tile.row_end) {  // no rows for this warp group
      for (int i = 0; i < tile.num_k_blocks; ++i) {
        pipeline.wait_full();
        pipeline.release(pipeline.stage);
        pipeline.advance();
      }
      continue;
    }
    Fp8Sums totals;
#pragma unroll
    for (int i = 0; i < 64; ++i) totals[i] = 0;
    if (tile.num_k_blocks > 0) multiply_tile<Kernel>(gemm, tile, pipeline, totals);
    const int row = tile.row + warp * Kernel::kWarpRows;
    if constexpr (Kernel::kWeightGrad) {
      float* result = static_cast<float*>(gemm.result) + int64_t{tile.group} * gemm.m * gemm.n;
      gemm.adds ? store_fp32<true>(totals, result, row, tile.row_end, tile.column, gemm.n)
                : store_fp32<false>(totals, result, row, tile.row_end, tile.column, gemm.n);
    } else {
      store_bf16(totals, store_buffer + warp * Kernel::kWarpRows * 128,
                 static_cast<__nv_bfloat16*>(gemm.result), row, tile, gemm.n);
    }
  }
}

template <class Kernel>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(Kernel::kThreads, 1)
    fp8_gemm_kernel(const __grid_constant__ Fp8Maps maps, const __grid_constant__ Fp8Gemm gemm) {
  extern __shared__ char shared[];
  const uint32_t address = cute::cast_smem_ptr_to_uint(shared);
  char* stages = shared + (1024 - address % 1024) % 1024;
  char* store_buffer = stages + Kernel::kStages * Kernel::kStageBytes;
  auto* full = reinterpret_cast<uint64_t*>(store_buffer + Kernel::kStoreBytes);
  uint64_t* empty = full + Kernel::kStages;
  const int rank = static_cast<int>(cute::block_rank_in_cluster());
  if (threadIdx.x == 0) {
    for (int i = 0; i < Kernel::kStages; ++i) {
      cutlass::arch::ClusterBarrier::init(full + i, 1);
      cutlass::arch::ClusterBarrier::init(empty + i, 2 * 8);  // warps that multiply, of both blocks
    }
    cutlass::arch::fence_barrier_init();
  }
  cute::cluster_arrive_relaxed();
  cute::cluster_wait();
  __syncthreads();
  const Fp8Tiles<Kernel> tiles(gemm, static_cast<int>(blockIdx.x / 2),
                               static_cast<int>(gridDim.x / 2), rank);
  if (threadIdx.x >= 256) {
    cutlass::arch::warpgroup_reg_dealloc<40>();
    if (uniform(threadIdx.x / 32) == 8) {
      load_tiles<Kernel>(gemm, maps, tiles, stages, full, empty, rank);
    }
  } else {
    cutlass::arch::warpgroup_reg_alloc<232>();
    multiply_tiles<Kernel>(gemm, tiles, stages, store_buffer, full, empty);
  }
  // Neither block ends while the other may still write to its memory or barriers.
  cute::cluster_arrive();
  cute::cluster_wait();
}

}  // namespace moetron
