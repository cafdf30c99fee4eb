#include "moetron/kernels/cuda/grouped_gemm.h"
#include "moetron/kernels/cuda/grouped_weight_grad.h"

namespace moetron {
namespace {

using Tile = cute::Shape<cute::_128, cute::_128, cute::_64>;
// d_y lies [rows, out]: its transposed, the first factor, lies column by column.
using Writes = GroupedGemm<Tile, ColumnMajor, RowMajor, float, void>;
using Adds = GroupedGemm<Tile, ColumnMajor, RowMajor, float, float>;
static_assert(Writes::kStages == 6 && Adds::kStages == 6);

// Tiles below each other are in flight together: they read the same columns of x.
constexpr TileOrder kOrder{.along_columns = false, .band = 1};

// Block (group, part). A group without rows is none to CUTLASS, which would not write its sums: its
// blocks zero them here.
__global__ void weight_grad_groups_kernel(GroupedWeightGrad product, Groups<float> groups) {
  const int group = blockIdx.x;
  const int64_t first = group == 0 ? 0 : product.ends[group - 1];
  const int rows = product.ends[group] - static_cast<int>(first);
  const int64_t size = int64_t{product.out} * product.in;
  float* sum = product.sum + group * size;
  if (blockIdx.y == 0 && threadIdx.x == 0) {
    groups.shapes[group] =
        rows > 0 ? ProblemShape(product.out, product.in, rows) : ProblemShape(0, 0, 0);
    groups.a[group] = static_cast<const Factor*>(product.d_y) + first * product.d_y_stride;
    groups.b[group] = static_cast<const Factor*>(product.x) + first * product.x_stride;
    groups.results[group] = sum;
    groups.a_strides[group] = product.d_y_stride;
    groups.b_strides[group] = product.x_stride;
    groups.result_strides[group] = product.in;
  }
  if (rows > 0 || product.adds) return;
  float4* vectors = reinterpret_cast<float4*>(sum);
  const int64_t step = int64_t{gridDim.y} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x; i < size / 4; i += step) {
    vectors[i] = make_float4(0, 0, 0, 0);
  }
}

template <class Gemm>
void launch(const GroupedWeightGrad& product, char* workspace, cudaStream_t stream) {
  constexpr int kThreads = 256, kZeroingBlocks = 32;
  const Groups<float> groups = take_groups<float>(workspace, product.num_groups);
  const dim3 grid(product.num_groups, product.adds ? 1 : kZeroingBlocks);
  weight_grad_groups_kernel<<<grid, kThreads, 0, stream>>>(product, groups);
  check_cuda(cudaGetLastError(), "weight_grad_groups_kernel");
  run_grouped<Gemm>(groups, product.num_groups, kOrder, workspace, stream);
}

}  // namespace

int64_t grouped_weight_grad_workspace_bytes(const GroupedWeightGrad& product) {
  return product.adds ? grouped_workspace_bytes<Adds, float>(product.num_groups, kOrder)
                      : grouped_workspace_bytes<Writes, float>(product.num_groups, kOrder);
}

void launch_grouped_weight_grad(const GroupedWeightGrad& product, void* workspace,
                                cudaStream_t stream) {
  auto* bytes = static_cast<char*>(workspace);
  product.adds ? launch<Adds>(product, bytes, stream) : launch<Writes>(product, bytes, stream);
}

}  // namespace moetron
