// What CUTLASS's grouped products on Hopper share: one kernel multiplies a pair of matrices for
// each group, whose sizes and places lie on the GPU.
#pragma once

#include "cute/tensor.hpp"
#include "cutlass/cutlass.h"
#include "cutlass/epilogue/collective/collective_builder.hpp"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/gemm/device/gemm_universal_adapter.h"
#include "cutlass/gemm/group_array_problem_shape.hpp"
#include "cutlass/gemm/kernel/gemm_universal.hpp"
#include "moetron/kernels/cuda/grid.h"

namespace moetron {

using Factor = cutlass::bfloat16_t;
using ProblemShape = cute::Shape<int, int, int>;  // rows and columns of the result, what is summed
using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;

// `Old` is Result where the kernel adds to what the results hold, else void. Two warp groups take
// tiles by turns: while one reads and writes its tile's results, the other keeps the tensor cores
// busy.
template <class Tile, class LayoutA, class LayoutB, class Result, class Old>
struct GroupedGemm {
  static constexpr int kResultAlignment = 16 / sizeof(Result);
  using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, Old, RowMajor*,
      kResultAlignment, Result, RowMajor*, kResultAlignment,
      cutlass::epilogue::PtrArrayTmaWarpSpecializedPingpong,
      cutlass::epilogue::fusion::LinearCombination<Result, float>>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Factor, LayoutA*, 8, Factor, LayoutB*, 8,
      float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelPtrArrayTmaWarpSpecializedPingpong>::CollectiveOp;
  static constexpr int kStages = Mainloop::DispatchPolicy::Stages;
  using Kernel =
      cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::GroupProblemShape<ProblemShape>, Mainloop,
                                           Epilogue>;
  using Adapter = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
  // Strides have one number that is not fixed, that from row to row.
  static_assert(sizeof(typename Kernel::InternalStrideA) == sizeof(int64_t) &&
                sizeof(typename Kernel::InternalStrideB) == sizeof(int64_t) &&
                sizeof(typename Kernel::InternalStrideD) == sizeof(int64_t));
};

// What the kernel reads of each group; arrays on the GPU.
template <class Result>
struct Groups {
  ProblemShape* shapes;
  const Factor** a;
  const Factor** b;
  Result** results;
  int64_t* a_strides;  // elements from row to row as it lies
  int64_t* b_strides;
  int64_t* result_strides;
};

// Takes `count` elements from the workspace, each array at a multiple of 128 bytes.
template <class T>
T* take(char*& workspace, int count) {
  T* array = reinterpret_cast<T*>(workspace);
  workspace += (count * static_cast<int64_t>(sizeof(T)) + 127) / 128 * 128;
  return array;
}

template <class Result>
Groups<Result> take_groups(char*& workspace, int count) {
  return {.shapes = take<ProblemShape>(workspace, count),
          .a = take<const Factor*>(workspace, count),
          .b = take<const Factor*>(workspace, count),
          .results = take<Result*>(workspace, count),
          .a_strides = take<int64_t>(workspace, count),
          .b_strides = take<int64_t>(workspace, count),
          .result_strides = take<int64_t>(workspace, count)};
}

// In which order a group's tiles are in flight: down the rows of the result or along its columns,
// in bands of so many.
struct TileOrder {
  bool along_columns = false;
  int band = 1;
};

template <class Gemm, class Result>
typename Gemm::Adapter::Arguments grouped_arguments(const Groups<Result>& groups, int num_groups,
                                                    TileOrder order) {
  using Kernel = typename Gemm::Kernel;
  using Raster = cutlass::gemm::kernel::detail::RasterOrderOptions;
  constexpr bool adds = !cute::is_void_v<typename Kernel::ElementC>;
  typename Gemm::Adapter::Arguments all{};
  all.mode = cutlass::gemm::GemmUniversalMode::kGrouped;
  all.problem_shape = {num_groups, groups.shapes, nullptr};
  all.mainloop = {groups.a, reinterpret_cast<typename Kernel::InternalStrideA*>(groups.a_strides),
                  groups.b, reinterpret_cast<typename Kernel::InternalStrideB*>(groups.b_strides)};
  auto* strides = reinterpret_cast<typename Kernel::InternalStrideD*>(groups.result_strides);
  all.epilogue.thread.alpha = 1;
  all.epilogue.thread.beta = adds ? 1 : 0;
  if constexpr (adds) {
    all.epilogue.ptr_C = const_cast<const Result**>(groups.results);
    all.epilogue.dC = strides;
  }
  all.epilogue.ptr_D = groups.results;
  all.epilogue.dD = strides;
  all.scheduler.raster_order = order.along_columns ? Raster::AlongN : Raster::AlongM;
  all.scheduler.max_swizzle_size = order.band;
  all.hw_info.sm_count = static_cast<int>(num_multiprocessors());
  check_cuda(cudaGetDevice(&all.hw_info.device_id), "cudaGetDevice");
  return all;
}

template <class Gemm, class Result>
int64_t grouped_workspace_bytes(int num_groups, TileOrder order) {
  char* end = nullptr;
  const Groups<Result> groups = take_groups<Result>(end, num_groups);
  const auto all = grouped_arguments<Gemm>(groups, num_groups, order);
  return reinterpret_cast<intptr_t>(end) +
         static_cast<int64_t>(Gemm::Adapter::get_workspace_size(all));
}

// `workspace`: behind the groups.
template <class Gemm, class Result>
void run_grouped(const Groups<Result>& groups, int num_groups, TileOrder order, void* workspace,
                 cudaStream_t stream) {
  typename Gemm::Adapter gemm;
  const cutlass::Status status =
      gemm.run(grouped_arguments<Gemm>(groups, num_groups, order), workspace, stream);
  MT_CHECK(status == cutlass::Status::kSuccess,
           "grouped product: ", cutlass::cutlassGetStatusString(status));
}

}  // namespace moetron
