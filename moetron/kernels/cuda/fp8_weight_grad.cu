// Weight gradients. 128 x 128 numbers of each factor share a scale (columns_of() of fp8.h), so that
// a tile's sums of 128 products have one, which is the product of two. A tile has 256 rows, since
// the result in fp32 is much beside what few rows an expert has are loaded and multiplied.
#include "moetron/kernels/cuda/fp8_launch.h"
#include "moetron/kernels/cuda/fp8_product.h"

namespace moetron {
namespace {

// A warp group multiplies 128 rows, 64 at a time.
struct WeightGradKernel {
  static constexpr bool kWeightGrad = true;
  static constexpr int kRows = 256, kStages = 3, kWaveRows = 64;
  static constexpr int kLoadedBytes = (kRows + kFp8Size) * kFp8Size;
  static constexpr int kStageBytes = kLoadedBytes;
  // Results leave by way of shared memory, 64 x 64 numbers at a time of each warp group.
  static constexpr int kBoxColumns = 32, kBoxBytes = kWaveRows * kBoxColumns * 4;
  static constexpr int kPartBytes = 2 * kBoxBytes, kParts = 2;
  static constexpr int kStoreBytes = 2 * kParts * kPartBytes;
  static constexpr int kDelay = 300;  // clocks

  struct Arguments {
    Fp8Gemm gemm;
    CUtensorMap a, b, result;  // [m, k], [n, k]; [groups, m, n]
  };

  static __device__ __forceinline__ void load_stage(const Arguments& args, const Fp8Tile& tile,
                                                    int k_block, const Fp8StageCopies& copies) {
    const int k = k_block * kFp8Size;
    copy_for_both(copies, args.a, k, tile.row, kRows);
    copy_tile(copies, args.b, copies.stage + kRows * kFp8Size, k, tile.column);
  }

  static __device__ void multiply_tiles(const Arguments& args, Fp8Tiles<WeightGradKernel> tiles,
                                        Fp8Pipeline<WeightGradKernel> pipeline, char* store_buffer);
};

// The scales of a tile's sums, one after the other; each is fetched before it is wanted.
class TileScales {
 public:
  __device__ __forceinline__ TileScales(const Fp8Gemm& gemm, const Fp8Tile& tile, int row)
      : a_(scales_of(gemm.a, row, gemm.m) + tile.k_block),
        b_(scales_of(gemm.b, tile.column, gemm.n) + tile.k_block),
        last_(tile.num_k_blocks - 1),
        next_(__ldg(a_) * __ldg(b_)) {}

  __device__ __forceinline__ float take() {
    const float scale = next_;
    index_ = min(index_ + 1, last_);
    next_ = __ldg(a_ + index_) * __ldg(b_ + index_);
    return scale;
  }

 private:
  // Tiles may lie behind the last row or column: what they compute is not stored.
  static __device__ const float* scales_of(const Fp8Matrix& matrix, int row, int rows) {
    return matrix.scales + min(row, rows - 1) / kFp8Size * matrix.scale_stride;
  }

  const float *a_, *b_;
  int last_, index_ = 0;
  float next_;
};

__device__ __forceinline__ void add_scaled(Fp8Sums& totals, const Fp8Sums& sums, float scale) {
#pragma unroll
  for (int i = 0; i < 64; ++i) totals[i] += scale * sums[i];
}

// Of a warp group, with the sums of its two waves. While it scales, the other one multiplies.
__device__ __forceinline__ void multiply_tile(const Fp8Gemm& gemm, const Fp8Tile& tile, int row,
                                              Fp8Pipeline<WeightGradKernel>& pipeline,
                                              Fp8Sums& first, Fp8Sums& second) {
  TileScales scales(gemm, tile, row);
  Fp8Sums sums;
#pragma unroll 1
  for (int i = 0; i < tile.num_k_blocks; ++i) {
    pipeline.wait_full();
    pipeline.begin_multiply(sums);
    const float scale = scales.take();
    cute::warpgroup_wait<0>();
    fence(sums);
    add_scaled(first, sums, scale);
    pipeline.begin_multiply(sums, WeightGradKernel::kWaveRows);
    cute::warpgroup_wait<0>();
    fence(sums);
    __syncwarp();
    pipeline.release(pipeline.stage);
    add_scaled(second, sums, scale);
    pipeline.advance();
  }
}

// A warp group's way to the result, which the copy engine takes while the next tile is begun.
class ResultWriter {
 public:
  __device__ ResultWriter(const WeightGradKernel::Arguments& args, char* buffer, int group)
      : args_(args), buffer_(buffer), group_(group) {}

  // 64 rows from `row` on.
  __device__ __forceinline__ void write(const Fp8Sums& totals, const Fp8Tile& tile, int row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // 64 columns
      char* part = buffer_ + part_ * WeightGradKernel::kPartBytes;
      if (is_leader()) cute::tma_store_wait<WeightGradKernel::kParts - 1>();
      synchronise();
      put(totals + 32 * half, part);
      cute::tma_store_fence();
      synchronise();
      if (is_leader()) send(part, tile.column + 64 * half, row, tile.group);
      part_ = (part_ + 1) % WeightGradKernel::kParts;
    }
  }

  __device__ void finish() const {
    if (is_leader()) cute::tma_store_wait<0>();
  }

 private:
  __device__ static bool is_leader() {
    return threadIdx.x % 128 == 0;
  }
  __device__ void synchronise() const {
    asm volatile("bar.sync %0, 128;" ::"r"(group_ + 1) : "memory");
  }

  // A thread's 32 sums, into two boxes whose rows of 128 bytes are swizzled.
  __device__ static __forceinline__ void put(const float* sums, char* part) {
    const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) {  // eight columns
      const int chunk = i % 4 * 2 + lane % 4 / 2;
      char* place = part + i / 4 * WeightGradKernel::kBoxBytes + row * 128 +
                    (chunk ^ (row % 8)) * 16 + lane % 2 * 8;
      *reinterpret_cast<float2*>(place) = make_float2(sums[4 * i], sums[4 * i + 1]);
      *reinterpret_cast<float2*>(place + 8 * 128) = make_float2(sums[4 * i + 2], sums[4 * i + 3]);
    }
  }

  // What is behind the result's last row or column the copy engine leaves out.
  __device__ __forceinline__ void send(const char* part, int column, int row, int group) const {
#pragma unroll
    for (int box = 0; box < 2; ++box) {
      const char* source = part + box * WeightGradKernel::kBoxBytes;
      const int first = column + box * WeightGradKernel::kBoxColumns;
      if (args_.gemm.adds) {  // one writer: the order of additions is fixed
        cute::SM90_TMA_REDUCE_ADD_3D::copy(&args_.result, source, first, row, group);
      } else {
        cute::SM90_TMA_STORE_3D::copy(&args_.result, source, first, row, group);
      }
    }
    cute::tma_store_arrive();
  }

  const WeightGradKernel::Arguments& args_;
  char* buffer_;
  int group_, part_ = 0;
};

__device__ void WeightGradKernel::multiply_tiles(const Arguments& args,
                                                 Fp8Tiles<WeightGradKernel> tiles,
                                                 Fp8Pipeline<WeightGradKernel> pipeline,
                                                 char* store_buffer) {
  const int group = uniform(threadIdx.x / 128);
  ResultWriter writer(args, store_buffer + group * kParts * kPartBytes, group);
  // Clusters begin one after the other, for those that end a tile together wait for the memory.
  const int64_t begin = clock64() + int64_t{kDelay} * (blockIdx.x / 2 * 29 % (gridDim.x / 2));
  while (clock64() < begin) {
  }
  Fp8Tile tile;
  while (tiles.next(tile)) {
    const int row = tile.row + group * (kRows / 2);
    Fp8Sums first, second;
    clear(first);
    clear(second);
    if (tile.num_k_blocks > 0) multiply_tile(args.gemm, tile, row, pipeline, first, second);
    writer.write(first, tile, row);
    writer.write(second, tile, row + kWaveRows);
  }
  writer.finish();
}

}  // namespace

void launch_fp8_weight_grad(const Fp8Gemm& gemm, cudaStream_t stream) {
  using Kernel = WeightGradKernel;
  launch_fp8<Kernel>({.gemm = gemm,
                      .a = map_of_values(gemm.a.values, gemm.m, gemm.k, Kernel::kRows / 2),
                      .b = map_of_values(gemm.b.values, gemm.n, gemm.k, kFp8Size),
                      .result = map_of_results(gemm, Kernel::kWaveRows, Kernel::kBoxColumns)},
                     stream);
}

}  // namespace moetron
