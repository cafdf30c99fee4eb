#include <cuda_bf16.h>

#include "cute/tensor.hpp"
#include "cutlass/cutlass.h"
#include "cutlass/epilogue/collective/collective_builder.hpp"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/gemm/device/gemm_universal_adapter.h"
#include "cutlass/gemm/group_array_problem_shape.hpp"
#include "cutlass/gemm/kernel/gemm_universal.hpp"
#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/grouped_weight_grad.h"

namespace moetron {
namespace {

using Factor = cutlass::bfloat16_t;
using ProblemShape = cute::Shape<int, int, int>;  // out, in, rows of the group
using Tile = cute::Shape<cute::_128, cute::_128, cute::_64>;
using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;
using RowMajor = cutlass::layout::RowMajor;
// d_y lies [rows, out]: its transposed, the first factor, lies column by column.
using ColumnMajor = cutlass::layout::ColumnMajor;

// `Old` is float where the kernel adds to what the sums hold, else void. Two warp groups take tiles
// by turns: while one reads and writes its tile's sums, the other keeps the tensor cores busy.
template <class Old>
struct Product {
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, Old, RowMajor*, 4, float,
      RowMajor*, 4, cutlass::epilogue::PtrArrayTmaWarpSpecializedPingpong,
      cutlass::epilogue::fusion::LinearCombination<float, float>>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Factor, ColumnMajor*, 8, Factor,
      RowMajor*, 8, float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelPtrArrayTmaWarpSpecializedPingpong>::CollectiveOp;
  static_assert(Mainloop::DispatchPolicy::Stages == 6);
  using Kernel =
      cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::GroupProblemShape<ProblemShape>, Mainloop,
                                           Epilogue>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
  // Strides have one number that is not fixed, that from row to row.
  static_assert(sizeof(typename Kernel::InternalStrideA) == sizeof(int64_t) &&
                sizeof(typename Kernel::InternalStrideB) == sizeof(int64_t) &&
                sizeof(typename Kernel::InternalStrideD) == sizeof(int64_t));
};
using Writes = Product<void>;
using Adds = Product<float>;

// What the kernel reads of each group; arrays on the GPU.
struct Groups {
  ProblemShape* shapes;
  const Factor** d_y;
  const Factor** x;
  float** sums;
  int64_t* d_y_strides;
  int64_t* x_strides;
  int64_t* sum_strides;
};

constexpr int64_t round_up(int64_t bytes) {
  return (bytes + 127) / 128 * 128;
}

// Takes `count` elements from the workspace, each array at a multiple of 128 bytes.
template <class T>
T* take(char*& workspace, int count) {
  T* array = reinterpret_cast<T*>(workspace);
  workspace += round_up(count * static_cast<int64_t>(sizeof(T)));
  return array;
}

Groups take_groups(char*& workspace, int count) {
  return {.shapes = take<ProblemShape>(workspace, count),
          .d_y = take<const Factor*>(workspace, count),
          .x = take<const Factor*>(workspace, count),
          .sums = take<float*>(workspace, count),
          .d_y_strides = take<int64_t>(workspace, count),
          .x_strides = take<int64_t>(workspace, count),
          .sum_strides = take<int64_t>(workspace, count)};
}

// Block (group, part). A group without rows is none to CUTLASS, which would not write its sums: its
// blocks zero them here.
__global__ void weight_grad_groups_kernel(GroupedWeightGrad product, Groups groups) {
  const int group = blockIdx.x;
  const int64_t first = group == 0 ? 0 : product.ends[group - 1];
  const int rows = product.ends[group] - static_cast<int>(first);
  const int64_t size = int64_t{product.out} * product.in;
  float* sum = product.sum + group * size;
  if (blockIdx.y == 0 && threadIdx.x == 0) {
    groups.shapes[group] =
        rows > 0 ? ProblemShape(product.out, product.in, rows) : ProblemShape(0, 0, 0);
    groups.d_y[group] = static_cast<const Factor*>(product.d_y) + first * product.d_y_stride;
    groups.x[group] = static_cast<const Factor*>(product.x) + first * product.x_stride;
    groups.sums[group] = sum;
    groups.d_y_strides[group] = product.d_y_stride;
    groups.x_strides[group] = product.x_stride;
    groups.sum_strides[group] = product.in;
  }
  if (rows > 0 || product.adds) return;
  float4* vectors = reinterpret_cast<float4*>(sum);
  const int64_t step = int64_t{gridDim.y} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x; i < size / 4; i += step) {
    vectors[i] = make_float4(0, 0, 0, 0);
  }
}

template <class Chosen>
typename Chosen::Gemm::Arguments arguments(const Groups& groups, int num_groups) {
  using Kernel = typename Chosen::Kernel;
  constexpr bool adds = !cute::is_void_v<typename Kernel::ElementC>;
  typename Chosen::Gemm::Arguments all{};
  all.mode = cutlass::gemm::GemmUniversalMode::kGrouped;
  all.problem_shape = {num_groups, groups.shapes, nullptr};
  all.mainloop = {groups.d_y,
                  reinterpret_cast<typename Kernel::InternalStrideA*>(groups.d_y_strides), groups.x,
                  reinterpret_cast<typename Kernel::InternalStrideB*>(groups.x_strides)};
  auto* sum_strides = reinterpret_cast<typename Kernel::InternalStrideD*>(groups.sum_strides);
  all.epilogue.thread.alpha = 1;
  all.epilogue.thread.beta = adds ? 1 : 0;
  if constexpr (adds) {
    all.epilogue.ptr_C = const_cast<const float**>(groups.sums);
    all.epilogue.dC = sum_strides;
  }
  all.epilogue.ptr_D = groups.sums;
  all.epilogue.dD = sum_strides;
  // Tiles below each other are in flight together: they read the same columns of x.
  all.scheduler.raster_order = cutlass::gemm::kernel::detail::RasterOrderOptions::AlongM;
  all.scheduler.max_swizzle_size = 1;
  all.hw_info.sm_count = static_cast<int>(num_multiprocessors());
  check_cuda(cudaGetDevice(&all.hw_info.device_id), "cudaGetDevice");
  return all;
}

void check_cutlass(cutlass::Status status) {
  MT_CHECK(status == cutlass::Status::kSuccess,
           "grouped weight gradient: ", cutlass::cutlassGetStatusString(status));
}

template <class Chosen>
int64_t workspace_bytes(int num_groups) {
  char* end = nullptr;
  const Groups groups = take_groups(end, num_groups);
  const auto all = arguments<Chosen>(groups, num_groups);
  return reinterpret_cast<intptr_t>(end) +
         static_cast<int64_t>(Chosen::Gemm::get_workspace_size(all));
}

template <class Chosen>
void launch(const GroupedWeightGrad& product, char* workspace, cudaStream_t stream) {
  constexpr int kThreads = 256, kZeroingBlocks = 32;
  const Groups groups = take_groups(workspace, product.num_groups);
  const dim3 grid(product.num_groups, product.adds ? 1 : kZeroingBlocks);
  weight_grad_groups_kernel<<<grid, kThreads, 0, stream>>>(product, groups);
  check_cuda(cudaGetLastError(), "weight_grad_groups_kernel");
  typename Chosen::Gemm gemm;
  check_cutlass(gemm.run(arguments<Chosen>(groups, product.num_groups), workspace, stream));
}

}  // namespace

int64_t grouped_weight_grad_workspace_bytes(const GroupedWeightGrad& product) {
  return product.adds ? workspace_bytes<Adds>(product.num_groups)
                      : workspace_bytes<Writes>(product.num_groups);
}

void launch_grouped_weight_grad(const GroupedWeightGrad& product, void* workspace,
                                cudaStream_t stream) {
  auto* bytes = static_cast<char*>(workspace);
  product.adds ? launch<Adds>(product, bytes, stream) : launch<Writes>(product, bytes, stream);
}

}  // namespace moetron
