// Products of FP8 factors with scales on Hopper's tensor cores: d = a b^T, each factor with a scale
// for every 128 of what is summed. The tensor cores' sums keep about 14 bits, so each 128 products
// are added up there and then, scaled, in fp32 registers.
//
// What the kernels share. A cluster of two blocks computes two tiles beside each other: each loads
// half of their rows of a for both. A block has two warp groups that multiply, and one that loads.
// A Kernel has, as constants:
//   kRows            of a tile; its columns, and what is summed at a time, are 128
//   kStages          of shared memory, each for 128 of what is summed
//   kStageBytes      a multiple of 1024, at which swizzled tiles begin
//   kLoadedBytes     of a stage, what is loaded
//   kStoreBytes      of shared memory, for results
// as types and functions:
//   Arguments        with .gemm, an Fp8Gemm
//   load_stage()     of one thread: begins to load a stage
//   multiply_tiles() of the warp groups that multiply: all tiles of a block
#pragma once

#include <cstdint>
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <utility>

#include "cute/arch/cluster_sm90.hpp"
#include "cute/arch/copy_sm90_tma.hpp"
#include "cute/arch/mma_sm90_gmma.hpp"
#include "cutlass/arch/barrier.h"
#include "cutlass/arch/reg_reconfig.h"
#include "moetron/kernels/cuda/fp8_tiles.h"

namespace moetron {

constexpr int kFp8Threads = 384;

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

__device__ __forceinline__ void clear(Fp8Sums& sums) {
#pragma unroll
  for (int i = 0; i < 64; ++i) sums[i] = 0;
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
  // Begins sums = a b^T over the 128 of the stage, for 64 of the warp group's rows.
  __device__ __forceinline__ void begin_multiply(Fp8Sums& sums, int first_row = 0) const {
    const uint32_t of_stage = stage * (Kernel::kStageBytes / 16);
    const uint32_t a = a_place + of_stage + first_row * (kFp8Size / 16), b = b_place + of_stage;
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
  __device__ void wait_full() const {
    cutlass::arch::ClusterBarrier::wait(full + stage, phase);
  }
  // Of a warp, to the blocks that loaded it.
  __device__ void release(int of_stage) const {
    const uint32_t lane = threadIdx.x % 32;
    if (lane < 2) cutlass::arch::ClusterBarrier::arrive(empty + of_stage, lane, 1);
  }
};

// The copies that fill a stage.
struct Fp8StageCopies {
  char* stage;
  uint64_t* full;
  int rank;  // of the block in its cluster
};

__device__ __forceinline__ void copy_tile(const Fp8StageCopies& copies, const CUtensorMap& map,
                                          char* target, int column, int row) {
  constexpr auto kKeep = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  cute::SM90_TMA_LOAD_2D::copy(&map, copies.full, kKeep, target, column, row);
}

// Both blocks get `rows` rows of a, of which each copies its half for both.
__device__ __forceinline__ void copy_for_both(const Fp8StageCopies& copies, const CUtensorMap& map,
                                              int column, int row, int rows) {
  constexpr auto kKeep = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  const int half = copies.rank * (rows / 2);
  cute::SM90_TMA_LOAD_MULTICAST_2D::copy(&map, copies.full, 3, kKeep,
                                         copies.stage + half * kFp8Size, column, row + half);
}

// Of one warp: fills the stages, each as soon as both blocks of the cluster have done with it.
template <class Kernel>
__device__ void load_tiles(const typename Kernel::Arguments& args, Fp8Tiles<Kernel> tiles,
                           char* stages, uint64_t* full, uint64_t* empty, int rank) {
  using Full = cutlass::arch::ClusterTransactionBarrier;
  int stage = 0;
  uint32_t phase = 0;
  Fp8Tile tile;
  while (tiles.next(tile)) {
#pragma unroll 1
    for (int i = 0; i < tile.num_k_blocks; ++i) {
      Full::wait(empty + stage, phase ^ 1);
      if (cute::elect_one_sync()) {
        Full::arrive_and_expect_tx(full + stage, Kernel::kLoadedBytes);
        Kernel::load_stage(args, tile, tile.k_block + i,
                           {stages + stage * Kernel::kStageBytes, full + stage, rank});
      }
      __syncwarp();
      if (++stage == Kernel::kStages) {
        stage = 0;
        phase ^= 1;
      }
    }
  }
}

template <class Kernel>
constexpr int kFp8SharedBytes = 1024 +
                                Kernel::kStages*(Kernel::kStageBytes + 16) + Kernel::kStoreBytes;

template <class Kernel>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kFp8Threads, 1)
    fp8_gemm_kernel(const __grid_constant__ typename Kernel::Arguments args) {
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
  const Fp8Tiles<Kernel> tiles(args.gemm, static_cast<int>(blockIdx.x / 2),
                               static_cast<int>(gridDim.x / 2), rank);
  if (threadIdx.x >= 256) {
    cutlass::arch::warpgroup_reg_dealloc<40>();
    if (uniform(threadIdx.x / 32) == 8) {
      load_tiles<Kernel>(args, tiles, stages, full, empty, rank);
    }
  } else {
    cutlass::arch::warpgroup_reg_alloc<232>();
    const int group = uniform(threadIdx.x / 128);
    Fp8Pipeline<Kernel> pipeline{
        .stages = stages,
        .full = full,
        .empty = empty,
        .a_place = tile_place(stages + group * (Kernel::kRows / 2) * kFp8Size),
        .b_place = tile_place(stages + Kernel::kRows * kFp8Size)};
    Kernel::multiply_tiles(args, tiles, pipeline, store_buffer);
  }
  // Neither block ends while the other may still write to its memory or barriers.
  cute::cluster_arrive();
  cute::cluster_wait();
}

}  // namespace moetron
