// A stable counting sort in two kernels. The choices are cut into chunks, one a block: the first
// kernel counts each chunk's experts, the second adds up the counts of the chunks before its own
// and places its choices.
#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/row_map.h"

namespace moetron {
namespace {

constexpr int kThreads = kMostLocalExperts;  // a thread an expert where counts are added up
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostChunks = 64;

int chunk_size(int64_t num_choices) {
  const int64_t tiles = (num_choices + kThreads - 1) / kThreads;
  return static_cast<int>((tiles + kMostChunks - 1) / kMostChunks * kThreads);
}

// -1 where it is not here.
__device__ int local_expert(const RowMapArgs& args, int choice) {
  const int64_t local = args.experts[choice] - args.first;
  return local >= 0 && local < args.num_local ? static_cast<int>(local) : -1;
}

__global__ void __launch_bounds__(kThreads)
    build_row_map_count_kernel(const RowMapArgs args, int chunk) {
  __shared__ int counts[kThreads];
  counts[threadIdx.x] = 0;
  __syncthreads();
  const int begin = blockIdx.x * chunk, end = min(begin + chunk, args.num_choices);
  for (int choice = begin + threadIdx.x; choice < end; choice += kThreads) {
    const int local = local_expert(args, choice);
    if (local >= 0) atomicAdd(&counts[local], 1);
  }
  __syncthreads();
  if (threadIdx.x < args.num_local) {
    args.counts[int64_t{blockIdx.x} * args.num_local + threadIdx.x] = counts[threadIdx.x];
  }
}

__device__ int sum_up_to_lane(int x) {
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, x, offset);
    if (threadIdx.x % kWarp >= offset) x += other;
  }
  return x;
}

struct RunningSum {
  int own;    // up to this thread, its own number included
  int total;  // of the whole block
};

__device__ RunningSum sum_up_to_thread(int x) {
  __shared__ int of_warps[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  x = sum_up_to_lane(x);
  if (lane == kWarp - 1) of_warps[warp] = x;
  __syncthreads();
  if (warp == 0) of_warps[lane] = sum_up_to_lane(of_warps[lane]);
  __syncthreads();
  return {x + (warp > 0 ? of_warps[warp - 1] : 0), of_warps[kWarps - 1]};
}

__global__ void __launch_bounds__(kThreads)
    build_row_map_place_kernel(const RowMapArgs args, int chunk) {
  extern __shared__ unsigned short row_map_memory[];
  __shared__ int next[kThreads];                    // the row of each expert's next choice
  unsigned short* const of_warps = row_map_memory;  // [kWarps, num_local]
  const int expert = threadIdx.x, num_local = args.num_local;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int before = 0, count = 0;
  if (expert < num_local) {
#pragma unroll 16
    for (int i = 0; i < gridDim.x; ++i) {
      const int here = args.counts[int64_t{i} * num_local + expert];
      before += i < blockIdx.x ? here : 0;
      count += here;
    }
  }
  const int aligned = (count + args.alignment - 1) / args.alignment * args.alignment;
  const RunningSum sum = sum_up_to_thread(aligned);
  next[expert] = sum.own - aligned + before;
  if (blockIdx.x == 0 && expert < num_local) args.ends[expert] = sum.own;

  const int begin = blockIdx.x * chunk, end = min(begin + chunk, args.num_choices);
  for (int tile = begin; tile < end; tile += kThreads) {
    for (int i = threadIdx.x; i < kWarps * num_local; i += kThreads) of_warps[i] = 0;
    __syncthreads();
    const int choice = tile + threadIdx.x;
    const int local = choice < end ? local_expert(args, choice) : -1;
    const unsigned same = __match_any_sync(0xffffffffu, local);
    const int rank = __popc(same & ((1u << lane) - 1));
    if (local >= 0 && rank == 0) of_warps[warp * num_local + local] = __popc(same);
    __syncthreads();
    int in_tile = 0;
    if (expert < num_local) {
      for (int i = 0; i < kWarps; ++i) {
        const int here = of_warps[i * num_local + expert];
        of_warps[i * num_local + expert] = static_cast<unsigned short>(in_tile);
        in_tile += here;
      }
    }
    __syncthreads();
    if (local >= 0) {
      const int row = next[local] + of_warps[warp * num_local + local] + rank;
      args.row_of_choice[choice] = row;
      args.choice_of_row[row] = choice;
    } else if (choice < end) {
      args.row_of_choice[choice] = -1;
    }
    if (choice < end && choice >= sum.total) args.choice_of_row[choice] = -1;
    __syncthreads();
    next[expert] += in_tile;
  }
}

}  // namespace

int64_t row_map_chunks(int64_t num_choices) {
  const int64_t chunk = chunk_size(num_choices);
  return (num_choices + chunk - 1) / chunk;
}

void launch_build_row_map(const RowMapArgs& args, cudaStream_t stream) {
  const int chunk = chunk_size(args.num_choices);
  const auto blocks = static_cast<unsigned>(row_map_chunks(args.num_choices));
  build_row_map_count_kernel<<<blocks, kThreads, 0, stream>>>(args, chunk);
  check_cuda(cudaGetLastError(), "build_row_map_count_kernel");
  const int bytes = kWarps * args.num_local * static_cast<int>(sizeof(unsigned short));
  check_cuda(cudaFuncSetAttribute(build_row_map_place_kernel,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
             "cudaFuncSetAttribute");
  build_row_map_place_kernel<<<blocks, kThreads, bytes, stream>>>(args, chunk);
  check_cuda(cudaGetLastError(), "build_row_map_place_kernel");
}

}  // namespace moetron
