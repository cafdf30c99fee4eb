#include "moetron/kernels/cuda/fp8_numbers.h"
#include "moetron/kernels/cuda/fp8_quantise.h"
#include "moetron/kernels/cuda/grid.h"

namespace moetron {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kRowsOfWarp = 8;       // whose scales are 32 bytes side by side
constexpr int kColumnsOfWarp = 256;  // eight a thread

// A warp quantises two tiles of eight rows.
__global__ void __launch_bounds__(kThreads) rows_kernel(const Fp8RowsLaunch args) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const int chunks = (args.size + kColumnsOfWarp - 1) / kColumnsOfWarp;
  const int64_t first_row = warp / chunks * kRowsOfWarp;
  if (first_row >= args.rows) return;
  const int column = static_cast<int>(warp % chunks) * kColumnsOfWarp + lane * 8;
  const bool is_inside = column < args.size;
  const auto* const x = static_cast<const uint4*>(args.x);
  auto* const values = static_cast<uint2*>(args.output.values);
  uint4 packed[kRowsOfWarp];
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) {
    packed[r] = make_uint4(0, 0, 0, 0);
    if (is_inside && first_row + r < args.rows) {
      packed[r] = x[((first_row + r) * args.size + column) / 8];
    }
  }
  float scale_of_lane = 0;
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) {
    float numbers[8];
    unpack(packed[r], numbers);
    const float scale = fp8_scale(largest_of_tile(bits_of_largest(numbers)));
    if (lane % kFp8TileLanes == r) scale_of_lane = scale;
    if (is_inside && first_row + r < args.rows) {
      values[((first_row + r) * args.size + column) / 8] =
          to_fp8(numbers, reciprocal_of_power(scale));
    }
  }
  const int row = lane % kFp8TileLanes;
  const int tile = (column - row * 8) / kFp8TileSize;  // of the half warp
  if (row < kRowsOfWarp && first_row + row < args.rows && tile * kFp8TileSize < args.size) {
    args.output.scales[tile * args.output.scale_stride + first_row + row] = scale_of_lane;
  }
}

// 128 x 128 bytes, whose rows of words are mixed so that neither going through rows nor through
// columns meets a bank twice.
struct TurningTile {
  alignas(16) unsigned words[kFp8TileSize][kFp8TileSize / 4];

  __device__ static int mixed(int row, int word) { return word ^ (row / 16 * 4); }
  // Eight numbers of a row, from column 8 * eighth on.
  __device__ void put(int row, int eighth, uint2 numbers) {
    *reinterpret_cast<uint2*>(&words[row][mixed(row, 2 * eighth)]) = numbers;
  }
  __device__ void put(int row, int sixteenth, uint4 numbers) {
    *reinterpret_cast<uint4*>(&words[row][mixed(row, 4 * sixteenth)]) = numbers;
  }

  // Writes the transposed to `target`, whose rows are `stride` bytes long: `columns` of the tile's
  // columns and, by 16, `rows` of its rows.
  __device__ void write_turned(unsigned char* target, int64_t stride, int columns, int rows) const {
    const int part = threadIdx.x % 8, word = threadIdx.x / 8;  // 16 rows of four columns
    if (part * 16 >= rows) return;
    unsigned turned[4][4];
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      unsigned of_row[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int row = part * 16 + quad * 4 + r;
        of_row[r] = words[row][mixed(row, word)];
      }
      const unsigned low01 = __byte_perm(of_row[0], of_row[1], 0x5140);
      const unsigned low23 = __byte_perm(of_row[2], of_row[3], 0x5140);
      const unsigned high01 = __byte_perm(of_row[0], of_row[1], 0x7362);
      const unsigned high23 = __byte_perm(of_row[2], of_row[3], 0x7362);
      turned[0][quad] = __byte_perm(low01, low23, 0x5410);
      turned[1][quad] = __byte_perm(low01, low23, 0x7632);
      turned[2][quad] = __byte_perm(high01, high23, 0x5410);
      turned[3][quad] = __byte_perm(high01, high23, 0x7632);
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int column = word * 4 + c;
      if (column >= columns) continue;
      *reinterpret_cast<uint4*>(target + column * stride + part * 16) =
          make_uint4(turned[c][0], turned[c][1], turned[c][2], turned[c][3]);
    }
  }
};

// The largest of all threads' bits.
__device__ unsigned largest_of_block(unsigned bits) {
  __shared__ unsigned of_warps[kThreads / kWarp];
  bits = __reduce_max_sync(0xffffffffu, bits);
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = bits;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarp; ++warp) bits = max(bits, of_warps[warp]);
  return bits;
}

// A block of threads quantises a block of 128 x 128 of a weight.
__global__ void __launch_bounds__(kThreads) blocks_kernel(const Fp8BlocksLaunch args) {
  __shared__ TurningTile tile;
  constexpr int kSteps = kFp8TileSize * kFp8TileLanes / kThreads;
  const int first_row = blockIdx.y * kFp8TileSize, first_column = blockIdx.x * kFp8TileSize;
  const int64_t group = blockIdx.z, begin = group * args.out * args.in;
  const int part = threadIdx.x % kFp8TileLanes, column = first_column + part * 8;
  const auto* const weight = static_cast<const __nv_bfloat16*>(args.weight) + begin;
  auto* const values = static_cast<unsigned char*>(args.values) + begin;
  uint4 packed[kSteps];
  unsigned largest = 0;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int row = first_row + (step * kThreads + threadIdx.x) / kFp8TileLanes;
    packed[step] = make_uint4(0, 0, 0, 0);
    if (row < args.out && column < args.in) {
      packed[step] = *reinterpret_cast<const uint4*>(weight + int64_t{row} * args.in + column);
    }
    float numbers[8];
    unpack(packed[step], numbers);
    largest = max(largest, bits_of_largest(numbers));
  }
  const float scale = fp8_scale(largest_of_block(largest)), inverse = reciprocal_of_power(scale);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int local = (step * kThreads + threadIdx.x) / kFp8TileLanes, row = first_row + local;
    float numbers[8];
    unpack(packed[step], numbers);
    const uint2 quantised = to_fp8(numbers, inverse);
    tile.put(local, part, quantised);
    if (row < args.out && column < args.in) {
      *reinterpret_cast<uint2*>(values + int64_t{row} * args.in + column) = quantised;
    }
  }
  __syncthreads();
  auto* const turned = static_cast<unsigned char*>(args.turned_values) + begin +
                       int64_t{first_column} * args.out + first_row;
  tile.write_turned(turned, args.out, args.in - first_column, args.out - first_row);
  if (threadIdx.x == 0) {
    const int64_t of_group = group * gridDim.x * gridDim.y;
    args.scales[of_group + blockIdx.y * gridDim.x + blockIdx.x] = scale;
    args.turned_scales[of_group + blockIdx.x * gridDim.y + blockIdx.y] = scale;
  }
}

// The rows that 128 padded rows stand for.
struct SourceRows {
  int64_t first = 0;
  int count = 0;  // the rest are zeros
};

// The first block also tells where the groups' padded rows end.
__device__ SourceRows source_of(const Fp8ColumnsLaunch& args, int64_t padded_row) {
  const bool tells = blockIdx.x == 0 && blockIdx.y == 0;
  SourceRows source;
  int64_t first = 0, padded = 0;
  for (int group = 0; group < args.groups; ++group) {
    const int64_t end = args.ends != nullptr ? args.ends[group] : args.rows;
    const int64_t tiles = (end - first + kFp8TileSize - 1) / kFp8TileSize;
    const int64_t behind = padded_row - padded;
    if (behind >= 0 && behind < tiles * kFp8TileSize) {
      source = {first + behind, static_cast<int>(min(int64_t{kFp8TileSize}, end - first - behind))};
      if (!tells) break;
    }
    first = end;
    padded += tiles * kFp8TileSize;
    if (tells) args.turned_ends[group] = static_cast<int32_t>(padded);
  }
  return source;
}

// Numbers of 8 bits times a power of two not above one.
__device__ unsigned scaled(unsigned four, __half2 factor) {
  unsigned result = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto pair = static_cast<__nv_fp8x2_storage_t>(four >> (16 * half));
    const __half2 numbers(__nv_cvt_fp8x2_to_halfraw2(pair, __NV_E4M3));
    const __half2 product = __hmul2(numbers, factor);
    result |= unsigned{__nv_cvt_halfraw2_to_fp8x2(__half2_raw(product), __NV_SATFINITE, __NV_E4M3)}
              << (16 * half);
  }
  return result;
}

// A block of threads turns 128 rows of 128 columns, and gives all of them the largest of the rows'
// scales: an exponent is taken away from the others' numbers, which is exact but where bits
// fall off at the end.
__global__ void __launch_bounds__(kThreads) columns_kernel(const Fp8ColumnsLaunch args) {
  __shared__ TurningTile tile;
  __shared__ float scales[kFp8TileSize];
  __shared__ SourceRows shared_source;
  const int first_column = blockIdx.y * kFp8TileSize;
  const int64_t padded_row = int64_t{blockIdx.x} * kFp8TileSize;
  if (threadIdx.x == 0) shared_source = source_of(args, padded_row);
  __syncthreads();
  const SourceRows source = shared_source;
  unsigned bits = 0;
  if (threadIdx.x < kFp8TileSize) {
    const float scale =
        threadIdx.x < source.count
            ? args.scales[blockIdx.y * args.scale_stride + source.first + threadIdx.x]
            : 0.0f;
    scales[threadIdx.x] = scale;
    bits = __float_as_uint(scale);
  }
  bits = max(largest_of_block(bits), __float_as_uint(0x1p-126f));
  const float scale = __uint_as_float(bits), inverse = reciprocal_of_power(scale);
  constexpr int kParts = kFp8TileSize / 16, kSteps = kFp8TileSize * kParts / kThreads;
  const int part = threadIdx.x % kParts, column = first_column + part * 16;
  const auto* const values = static_cast<const unsigned char*>(args.values);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int row = (step * kThreads + threadIdx.x) / kParts;
    uint4 numbers = make_uint4(0, 0, 0, 0);
    if (row < source.count && column < args.size) {
      numbers = *reinterpret_cast<const uint4*>(values + (source.first + row) * args.size + column);
      const __half2 factor = __float2half2_rn(scales[row] * inverse);
      numbers = make_uint4(scaled(numbers.x, factor), scaled(numbers.y, factor),
                           scaled(numbers.z, factor), scaled(numbers.w, factor));
    }
    tile.put(row, part, numbers);
  }
  __syncthreads();
  auto* const turned = static_cast<unsigned char*>(args.turned_values) +
                       int64_t{first_column} * args.padded_rows + padded_row;
  tile.write_turned(turned, args.padded_rows, args.size - first_column, kFp8TileSize);
  if (threadIdx.x == 0) args.turned_scales[int64_t{blockIdx.y} * gridDim.x + blockIdx.x] = scale;
}

unsigned tiles_of(int64_t size) {
  return static_cast<unsigned>((size + kFp8TileSize - 1) / kFp8TileSize);
}

}  // namespace

void launch_fp8_rows(const Fp8RowsLaunch& args, cudaStream_t stream) {
  const int64_t chunks = (args.size + kColumnsOfWarp - 1) / kColumnsOfWarp;
  const int64_t warps = chunks * ((args.rows + kRowsOfWarp - 1) / kRowsOfWarp);
  const auto blocks = static_cast<unsigned>((warps * kWarp + kThreads - 1) / kThreads);
  rows_kernel<<<blocks, kThreads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "fp8 rows_kernel");
}

void launch_fp8_blocks(const Fp8BlocksLaunch& args, cudaStream_t stream) {
  const dim3 grid(tiles_of(args.in), tiles_of(args.out), static_cast<unsigned>(args.groups));
  blocks_kernel<<<grid, kThreads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "fp8 blocks_kernel");
}

void launch_fp8_columns(const Fp8ColumnsLaunch& args, cudaStream_t stream) {
  const dim3 grid(tiles_of(args.padded_rows), tiles_of(args.size));
  columns_kernel<<<grid, kThreads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "fp8 columns_kernel");
}

}  // namespace moetron
