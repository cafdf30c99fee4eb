// Causal attention, forward or backward, as a graph of cuDNN's, on raw pointers.
#pragma once

#include <compare>
#include <cstdint>
#include <cudnn.h>
#include <memory>
#include <vector>

namespace cudnn_frontend::graph {
class Graph;
}

namespace moetron {

// How bf16 [sequences, tokens, heads, width] lies: elements of one width beside each other, and so
// many elements from one to the next of the other dims.
struct HeadsLayout {
  int64_t heads = 0, width = 0;
  int64_t sequence_stride = 0, token_stride = 0, head_stride = 0;
  auto operator<=>(const HeadsLayout&) const = default;
};

struct AttentionShape {
  int device = 0;
  bool backward = false;
  bool deterministic = false;  // the backward's sums have one order
  int64_t sequences = 0, tokens = 0;
  // Not 0: sequences of any length up to `tokens`, one behind the other, of so many tokens in all.
  // AttentionMemory says where each begins; sequence strides mean nothing.
  int64_t packed_tokens = 0;
  double softmax_scale = 0;
  HeadsLayout q, k, v, mixed;
  HeadsLayout d_mixed, d_q, d_k, d_v;  // the backward's
  auto operator<=>(const AttentionShape&) const = default;
};

// The distinct token strides of the shape's tensors, those of packed log_sums (1) among them,
// ascending.
std::vector<int64_t> token_strides(const AttentionShape& shape);

// log_sums: fp32 [sequences, heads of q, tokens] or packed [heads of q, packed_tokens], contiguous,
// the logarithm of each softmax's divisor. The forward writes mixed and log_sums, the backward d_q,
// d_k, d_v.
struct AttentionMemory {
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  void *mixed = nullptr, *log_sums = nullptr;
  const void* d_mixed = nullptr;
  void *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
  // Of packed sequences, on the GPU: the tokens of each, [sequences], and where each begins and the
  // last ends, in elements of a tensor whose tokens lie that far apart, [token_strides(), sequences
  // + 1].
  const int32_t* lengths = nullptr;
  const int64_t* begins = nullptr;
};

class AttentionGraph {
 public:
  // Asks cuDNN for its `most` likeliest plans, of the current GPU.
  AttentionGraph(cudnnHandle_t handle, const AttentionShape& shape, int most);

  int size() const { return static_cast<int>(plans_.size()); }
  int64_t workspace_bytes(int plan) const;
  // On the handle's stream; any thread may run it with a handle of its own.
  void run(int plan, cudnnHandle_t handle, const AttentionMemory& memory, void* workspace) const;

 private:
  std::shared_ptr<cudnn_frontend::graph::Graph> graph_;
  std::vector<int64_t> plans_;  // places in the graph's list
  int64_t sequences_ = 0;
  int64_t num_strides_ = 0;  // for which `begins` are; 0 where nothing is packed
};

}  // namespace moetron
