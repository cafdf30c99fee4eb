#include "moetron/kernels/cuda/grouped_gemm.h"
#include "moetron/kernels/cuda/grouped_product.h"

namespace moetron {
namespace {

using Tile = cute::Shape<cute::_128, cute::_192, cute::_64>;
using Plain = GroupedGemm<Tile, RowMajor, RowMajor, Factor, void>;
using Transposed = GroupedGemm<Tile, RowMajor, ColumnMajor, Factor, void>;
static_assert(Plain::kStages == 5 && Transposed::kStages == 5);

TileOrder order_of(const GroupedProduct& product) {
  return {.along_columns = product.along_columns, .band = 8};
}

// A thread a group. One without rows is none to CUTLASS.
__global__ void product_groups_kernel(GroupedProduct product, Groups<Factor> groups) {
  const int group = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (group >= product.num_groups) return;
  const int64_t first = group == 0 ? 0 : product.ends[group - 1];
  const int rows = product.ends[group] - static_cast<int>(first);
  const int64_t size = int64_t{product.out} * product.in;
  groups.shapes[group] =
      rows > 0 ? ProblemShape(rows, product.out, product.in) : ProblemShape(0, 0, 0);
  groups.a[group] = static_cast<const Factor*>(product.x) + first * product.in;
  groups.b[group] = static_cast<const Factor*>(product.weight) + group * size;
  groups.results[group] = static_cast<Factor*>(product.y) + first * product.out;
  groups.a_strides[group] = product.in;
  groups.b_strides[group] = product.transposed ? product.in : product.out;
  groups.result_strides[group] = product.out;
}

template <class Gemm>
void launch(const GroupedProduct& product, char* workspace, cudaStream_t stream) {
  constexpr int kThreads = 128;
  const Groups<Factor> groups = take_groups<Factor>(workspace, product.num_groups);
  const int blocks = (product.num_groups + kThreads - 1) / kThreads;
  product_groups_kernel<<<blocks, kThreads, 0, stream>>>(product, groups);
  check_cuda(cudaGetLastError(), "product_groups_kernel");
  run_grouped<Gemm>(groups, product.num_groups, order_of(product), workspace, stream);
}

}  // namespace

int64_t grouped_product_workspace_bytes(const GroupedProduct& product) {
  const TileOrder order = order_of(product);
  return product.transposed ? grouped_workspace_bytes<Transposed, Factor>(product.num_groups, order)
                            : grouped_workspace_bytes<Plain, Factor>(product.num_groups, order);
}

void launch_grouped_product(const GroupedProduct& product, void* workspace, cudaStream_t stream) {
  auto* bytes = static_cast<char*>(workspace);
  product.transposed ? launch<Transposed>(product, bytes, stream)
                     : launch<Plain>(product, bytes, stream);
}

}  // namespace moetron
