// Forward and input gradient: a's rows have a scale each, b's blocks one.
#include <cuda_bf16.h>

#include "cute/arch/copy_sm90.hpp"
#include "moetron/kernels/cuda/fp8_launch.h"
#include "moetron/kernels/cuda/fp8_product.h"

namespace moetron {
namespace {

// A warp group multiplies 64 rows.
struct ProductKernel {
  static constexpr bool kWeightGrad = false;
  static constexpr int kRows = 128, kStages = 6, kWarpRows = 16;
  static constexpr int kTileBytes = kRows * kFp8Size, kScaleBytes = kRows * 4;
  static constexpr int kLoadedBytes = 2 * kTileBytes + kScaleBytes;
  static constexpr int kStageBytes = 2 * kTileBytes + 1024;
  static constexpr int kStoreBytes = 8 * kWarpRows * 128;

  struct Arguments {
    Fp8Gemm gemm;
    CUtensorMap a, b, a_scales;  // [m, k], [groups * n, k]; [k / 128, m]
  };

  static __device__ __forceinline__ void load_stage(const Arguments& args, const Fp8Tile& tile,
                                                    int k_block, const Fp8StageCopies& copies) {
    char* b = copies.stage + kTileBytes;
    const int k = k_block * kFp8Size;
    copy_for_both(copies, args.a, k, tile.row, kRows);
    copy_tile(copies, args.b, b, k, tile.group * args.gemm.n + tile.column);
    copy_tile(copies, args.a_scales, b + kTileBytes, tile.row, k_block);
  }

  static __device__ void multiply_tiles(const Arguments& args, Fp8Tiles<ProductKernel> tiles,
                                        Fp8Pipeline<ProductKernel> pipeline, char* store_buffer);
};

// A warp group's way through the stages of one tile.
class TileSums {
 public:
  __device__ __forceinline__ TileSums(const Fp8Gemm& gemm, const Fp8Tile& tile,
                                      Fp8Pipeline<ProductKernel>& pipeline)
      : pipeline_(pipeline), oldest_(pipeline.stage), last_(tile.num_k_blocks - 1) {
    const int k_blocks = (gemm.k + kFp8Size - 1) / kFp8Size;
    const int n_blocks = (gemm.n + kFp8Size - 1) / kFp8Size;
    const int block = min(tile.column / kFp8Size, n_blocks - 1);
    block_scales_ = gemm.b.scales + int64_t{tile.group * n_blocks + block} * k_blocks;
    block_scale_ = __ldg(block_scales_);
  }

  // Begins to multiply the next 128, as soon as they are there.
  __device__ __forceinline__ void begin(Fp8Sums& sums) {
    pipeline_.wait_full();
    pipeline_.begin_multiply(sums);
    pipeline_.advance();
  }

  // Adds the oldest that were begun, of which kLater may go on, and gives their stage back.
  template <int kLater>
  __device__ __forceinline__ void add(Fp8Sums& sums, Fp8Sums& totals) {
    cute::warpgroup_wait<kLater>();
    fence(sums);
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    const auto* a_scales = reinterpret_cast<const float*>(
        pipeline_.stages + oldest_ * ProductKernel::kStageBytes + 2 * ProductKernel::kTileBytes);
    const float upper = a_scales[row] * block_scale_, lower = a_scales[row + 8] * block_scale_;
    block_scale_ = __ldg(block_scales_ + min(++k_block_, last_));
    __syncwarp();
    pipeline_.release(oldest_);  // nothing of the stage is read any more
#pragma unroll
    for (int i = 0; i < 64; i += 4) {
      totals[i] += upper * sums[i];
      totals[i + 1] += upper * sums[i + 1];
      totals[i + 2] += lower * sums[i + 2];
      totals[i + 3] += lower * sums[i + 3];
    }
    if (++oldest_ == ProductKernel::kStages) oldest_ = 0;
  }

 private:
  Fp8Pipeline<ProductKernel>& pipeline_;
  int oldest_, last_, k_block_ = 0;
  const float* block_scales_;
  float block_scale_;
};

// While the tensor cores sum one 128, the one before is scaled and added up. The loop has no
// branches: between them the compiler would wait for all that was begun.
__device__ __forceinline__ void multiply_tile(const Fp8Gemm& gemm, const Fp8Tile& tile,
                                              Fp8Pipeline<ProductKernel>& pipeline,
                                              Fp8Sums& totals) {
  TileSums of_tile(gemm, tile, pipeline);
  Fp8Sums even, odd;
  of_tile.begin(even);
  int left = tile.num_k_blocks;
  for (; left > 2; left -= 2) {
    of_tile.begin(odd);
    of_tile.add<1>(even, totals);
    of_tile.begin(even);
    of_tile.add<1>(odd, totals);
  }
  if (left == 2) {
    of_tile.begin(odd);
    of_tile.add<1>(even, totals);
    of_tile.add<0>(odd, totals);
  } else {
    of_tile.add<0>(even, totals);
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

__device__ void ProductKernel::multiply_tiles(const Arguments& args, Fp8Tiles<ProductKernel> tiles,
                                              Fp8Pipeline<ProductKernel> pipeline,
                                              char* store_buffer) {
  const int warp = threadIdx.x / 32, group = uniform(warp / 4);
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
    clear(totals);
    if (tile.num_k_blocks > 0) multiply_tile(args.gemm, tile, pipeline, totals);
    store_bf16(totals, store_buffer + warp * kWarpRows * 128,
               static_cast<__nv_bfloat16*>(args.gemm.result), tile.row + warp * kWarpRows, tile,
               args.gemm.n);
  }
}

}  // namespace

void launch_fp8_product(const Fp8Gemm& gemm, cudaStream_t stream) {
  launch_fp8<ProductKernel>(
      {.gemm = gemm,
       .a = map_of_values(gemm.a.values, gemm.m, gemm.k, ProductKernel::kRows / 2),
       .b = map_of_values(gemm.b.values, int64_t{gemm.n} * gemm.num_groups, gemm.k, kFp8Size),
       .a_scales = map_of_scales(gemm.a, gemm.m, gemm.k, ProductKernel::kRows)},
      stream);
}

}  // namespace moetron
