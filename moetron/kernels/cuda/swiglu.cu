#include "moetron/kernels/cuda/bf16x8.h"
#include "moetron/kernels/cuda/fp8_numbers.h"
#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/swiglu.h"

namespace moetron {
namespace {

// A warp goes through a row, so that the sum over it needs no barrier; small blocks leave no long
// tail where there are few rows.
constexpr int kWarp = 32;
constexpr int kRows = 4;           // of a block
constexpr int kForwardBlocks = 8;  // of a multiprocessor: bounds the registers
constexpr int kBackwardBlocks = 6;
constexpr int kForwardVectors = 4;   // under way together in a thread, each with two loads
constexpr int kBackwardVectors = 2;  // each with three

__device__ float sigmoid(float x) {
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

// Where a warp puts eight numbers a thread of its row, from `column` times eight on. All of a
// warp's threads come here together; those that are not inside bring zeros, and put nothing.
template <bool kInFp8>
struct RowOutput {
  void* memory;
  Fp8Output in_fp8;
  int64_t row;
  int row_vectors;  // eights of a row

  __device__ void put(int column, bool is_inside, const float (&x)[8]) const {
    const int64_t index = row * row_vectors + column;
    if constexpr (kInFp8) {
      const float scale = fp8_scale(largest_of_tile(bits_of_largest(x)));
      if (!is_inside) return;
      static_cast<uint2*>(in_fp8.values)[index] = to_fp8(x, reciprocal_of_power(scale));
      if (column % kFp8TileLanes == 0) {
        in_fp8.scales[column / kFp8TileLanes * in_fp8.scale_stride + row] = scale;
      }
    } else {
      if (is_inside) static_cast<uint4*>(memory)[index] = pack(x);
    }
  }
};

template <bool kInFp8>
__global__ void __launch_bounds__(kWarp* kRows, kForwardBlocks)
    swiglu_forward_kernel(const SwigluForward args) {
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.y;
  if (row >= args.rows) return;
  const int num_vectors = args.width / 8;
  const auto* const gates = static_cast<const uint4*>(args.gate_up) + row * 2 * num_vectors;
  const auto* const ups = gates + num_vectors;
  const RowOutput<kInFp8> y{args.y, args.y_in_fp8, row, num_vectors};
  const float weight = args.weights != nullptr ? args.weights[row] : 1.0f;
  for (int begin = 0; begin < num_vectors; begin += kForwardVectors * kWarp) {
    uint4 packed_gate[kForwardVectors] = {}, packed_up[kForwardVectors] = {};
#pragma unroll
    for (int v = 0; v < kForwardVectors; ++v) {
      const int column = begin + v * kWarp + threadIdx.x;
      if (column >= num_vectors) continue;
      packed_gate[v] = gates[column];
      packed_up[v] = ups[column];
    }
#pragma unroll
    for (int v = 0; v < kForwardVectors; ++v) {
      if (begin + v * kWarp >= num_vectors) break;
      const int column = begin + v * kWarp + threadIdx.x;
      float gate[8], up[8];
      unpack(packed_gate[v], gate);
      unpack(packed_up[v], up);
#pragma unroll
      for (int i = 0; i < 8; ++i) gate[i] = gate[i] * sigmoid(gate[i]) * up[i] * weight;
      y.put(column, column < num_vectors, gate);
    }
  }
}

template <bool kInFp8>
__global__ void __launch_bounds__(kWarp* kRows, kBackwardBlocks)
    swiglu_backward_kernel(const SwigluBackward args) {
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.y;
  if (row >= args.rows) return;
  const int num_vectors = args.width / 8;
  const auto* const gates = static_cast<const uint4*>(args.gate_up) + row * 2 * num_vectors;
  const auto* const ups = gates + num_vectors;
  const auto* const d_y = static_cast<const uint4*>(args.d_y) + row * num_vectors;
  const RowOutput<kInFp8> d_gate_up{args.d_gate_up, args.d_gate_up_in_fp8, row, 2 * num_vectors};
  const RowOutput<kInFp8> activation{args.activation, args.activation_in_fp8, row, num_vectors};
  const bool with_activation =
      args.activation != nullptr || args.activation_in_fp8.values != nullptr;
  const float weight = args.weights != nullptr ? args.weights[row] : 1.0f;
  float dot = 0;
  for (int begin = 0; begin < num_vectors; begin += kBackwardVectors * kWarp) {
    uint4 packed_gate[kBackwardVectors] = {}, packed_up[kBackwardVectors] = {},
          packed_d[kBackwardVectors] = {};
#pragma unroll
    for (int v = 0; v < kBackwardVectors; ++v) {
      const int column = begin + v * kWarp + threadIdx.x;
      if (column >= num_vectors) continue;
      packed_gate[v] = gates[column];
      packed_up[v] = ups[column];
      packed_d[v] = d_y[column];
    }
#pragma unroll
    for (int v = 0; v < kBackwardVectors; ++v) {
      if (begin + v * kWarp >= num_vectors) break;
      const int column = begin + v * kWarp + threadIdx.x;
      float gate[8], up[8], d[8];
      unpack(packed_gate[v], gate);
      unpack(packed_up[v], up);
      unpack(packed_d[v], d);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        // The products of the forward in its order: the same bits.
        const float s = sigmoid(gate[i]), silu = gate[i] * s, product = silu * up[i];
        dot += d[i] * product;
        const float d_product = d[i] * weight;
        gate[i] = d_product * up[i] * (s + silu * (1.0f - s));
        up[i] = d_product * silu;
        d[i] = product * weight;
      }
      const bool is_inside = column < num_vectors;
      d_gate_up.put(column, is_inside, gate);
      d_gate_up.put(column + num_vectors, is_inside, up);
      if (with_activation) activation.put(column, is_inside, d);
    }
  }
  if (args.d_weights == nullptr) return;
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    dot += __shfl_xor_sync(0xffffffffu, dot, offset);
  }
  if (threadIdx.x == 0) args.d_weights[row] = dot;
}

unsigned num_blocks(int64_t rows) {
  return static_cast<unsigned>((rows + kRows - 1) / kRows);
}

}  // namespace

void launch_swiglu_forward(const SwigluForward& args, cudaStream_t stream) {
  auto* const kernel =
      args.y_in_fp8.values != nullptr ? swiglu_forward_kernel<true> : swiglu_forward_kernel<false>;
  kernel<<<num_blocks(args.rows), dim3(kWarp, kRows), 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "swiglu_forward_kernel");
}

void launch_swiglu_backward(const SwigluBackward& args, cudaStream_t stream) {
  auto* const kernel = args.d_gate_up_in_fp8.values != nullptr ? swiglu_backward_kernel<true>
                                                               : swiglu_backward_kernel<false>;
  kernel<<<num_blocks(args.rows), dim3(kWarp, kRows), 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "swiglu_backward_kernel");
}

}  // namespace moetron
