// Rows on their way to the experts and back. A block a copy: it reads what it needs once.
#include "moetron/kernels/cuda/bf16x8.h"
#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/row_map.h"

namespace moetron {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerSm = 4;
constexpr int kWarp = 32;
constexpr int kLoads = 4;  // of a thread of gather_rows_kernel, under way together
constexpr int kSlots = 8;  // rows that a thread of sum_rows_kernel loads together

// So many for `units` that the last turn is about as full as the others.
int num_threads(int64_t units) {
  const int64_t turns = (units + kThreads - 1) / kThreads;
  const int64_t threads = (units + turns - 1) / turns;
  return static_cast<int>((threads + kWarp - 1) / kWarp * kWarp);
}

bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

template <class Unit>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    gather_rows_kernel(const Unit* __restrict__ hidden, const int* __restrict__ row_of_choice,
                       Unit* __restrict__ rows, int units, int top_k, int64_t num_rows) {
  const int* const places = row_of_choice + int64_t{blockIdx.x} * top_k;
  const Unit* const copy = hidden + int64_t{blockIdx.x} * units;
  bool is_here = false;
  for (int slot = 0; slot < top_k; ++slot) is_here |= places[slot] >= 0;
  if (!is_here) return;
  for (int first = threadIdx.x; first < units; first += kLoads * blockDim.x) {
    Unit x[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int unit = first + i * blockDim.x;
      if (unit < units) x[i] = copy[unit];
    }
    for (int slot = 0; slot < top_k; ++slot) {
      const int64_t row = places[slot];
      if (row < 0 || row >= num_rows) continue;
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int unit = first + i * blockDim.x;
        if (unit < units) rows[row * units + unit] = x[i];
      }
    }
  }
}

template <class Unit>
void gather(const GatherRows& args, cudaStream_t stream) {
  const auto units = static_cast<int>(args.row_bytes / static_cast<int64_t>(sizeof(Unit)));
  gather_rows_kernel<<<static_cast<unsigned>(args.copies), num_threads(units), 0, stream>>>(
      static_cast<const Unit*>(args.hidden), args.row_of_choice, static_cast<Unit*>(args.rows),
      units, args.top_k, args.num_rows);
}

// The elements that a thread loads at once, and as numbers.
template <class Unit>
struct Elements;

template <>
struct Elements<uint4> {
  float x[8];
  __device__ void load(const uint4& unit) { unpack(unit, x); }
  __device__ uint4 packed() const { return pack(x); }
};

template <>
struct Elements<__nv_bfloat16> {
  float x[1];
  __device__ void load(__nv_bfloat16 unit) { x[0] = __bfloat162float(unit); }
  __device__ __nv_bfloat16 packed() const { return __float2bfloat16_rn(x[0]); }
};

template <>
struct Elements<float4> {
  float x[4];
  __device__ void load(const float4& unit) {
    x[0] = unit.x, x[1] = unit.y, x[2] = unit.z, x[3] = unit.w;
  }
  __device__ float4 packed() const { return make_float4(x[0], x[1], x[2], x[3]); }
};

template <>
struct Elements<float> {
  float x[1];
  __device__ void load(float unit) { x[0] = unit; }
  __device__ float packed() const { return x[0]; }
};

template <class Unit>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    sum_rows_kernel(const Unit* __restrict__ rows, const int* __restrict__ row_of_choice,
                    Unit* __restrict__ sums, int units, int top_k) {
  constexpr int kWidth = sizeof(Elements<Unit>) / sizeof(float);
  const int* const places = row_of_choice + int64_t{blockIdx.x} * top_k;
  for (int unit = threadIdx.x; unit < units; unit += blockDim.x) {
    Elements<Unit> sum = {};
    for (int first = 0; first < top_k; first += kSlots) {
      Unit loaded[kSlots];
      bool is_here[kSlots];
#pragma unroll
      for (int i = 0; i < kSlots; ++i) {
        const int row = first + i < top_k ? places[first + i] : -1;
        is_here[i] = row >= 0;
        if (is_here[i]) loaded[i] = rows[int64_t{row} * units + unit];
      }
#pragma unroll
      for (int i = 0; i < kSlots; ++i) {
        if (!is_here[i]) continue;
        Elements<Unit> part;
        part.load(loaded[i]);
#pragma unroll
        for (int k = 0; k < kWidth; ++k) sum.x[k] += part.x[k];
      }
    }
    sums[int64_t{blockIdx.x} * units + unit] = sum.packed();
  }
}

template <class Unit>
void sum(const SumRows& args, cudaStream_t stream) {
  constexpr int kWidth = sizeof(Elements<Unit>) / sizeof(float);
  const auto units = static_cast<int>(args.size / kWidth);
  sum_rows_kernel<<<static_cast<unsigned>(args.copies), num_threads(units), 0, stream>>>(
      static_cast<const Unit*>(args.rows), args.row_of_choice, static_cast<Unit*>(args.sums), units,
      args.top_k);
}

__global__ void __launch_bounds__(kThreads)
    gather_choices_kernel(const float* from, const int* places, float* to, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) to[i] = places[i] >= 0 ? from[places[i]] : 0.0f;
}

}  // namespace

void launch_gather_rows(const GatherRows& args, cudaStream_t stream) {
  const bool aligned = args.row_bytes % 16 == 0 && is_aligned(args.hidden) && is_aligned(args.rows);
  const auto launch = aligned                   ? gather<uint4>
                      : args.element_bytes == 4 ? gather<float>
                      : args.element_bytes == 2 ? gather<unsigned short>
                                                : gather<unsigned char>;
  launch(args, stream);
  check_cuda(cudaGetLastError(), "gather_rows_kernel");
}

void launch_sum_rows(const SumRows& args, cudaStream_t stream) {
  const bool aligned =
      args.size % (args.is_bf16 ? 8 : 4) == 0 && is_aligned(args.rows) && is_aligned(args.sums);
  const auto launch = args.is_bf16 ? (aligned ? sum<uint4> : sum<__nv_bfloat16>)
                                   : (aligned ? sum<float4> : sum<float>);
  launch(args, stream);
  check_cuda(cudaGetLastError(), "sum_rows_kernel");
}

void launch_gather_choices(const float* from, const int* places, float* to, int64_t count,
                           cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  gather_choices_kernel<<<blocks, kThreads, 0, stream>>>(from, places, to, count);
  check_cuda(cudaGetLastError(), "gather_choices_kernel");
}

}  // namespace moetron
