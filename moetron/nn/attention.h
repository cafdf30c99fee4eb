// Causal self-attention: grouped-query (Ainslie et al., arXiv 2305.13245) with optional per-head
// norms and biases, and multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), in its
// expanded form.
//
// Under tensor parallelism the ranks of a group divide the heads (Shoeybi et al., arXiv
// 1909.08053), and hold slices of the tokens in front of the attention and behind it
// (parallel/token_layout.h).
//
// Letters in shapes: B batch, T new tokens, S tokens attended to, H hidden, N query heads and G
// key-value heads of this rank, D head size of queries and keys, V head size of values.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"
#include "moetron/nn/attention_cache.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/mlp.h"
#include "moetron/nn/rope.h"
#include "moetron/parallel/micro_batch.h"

namespace moetron {

class SegmentRun;

struct AttentionSettings {
  int64_t hidden_size = 0;
  int64_t num_heads = 0;            // over all tensor-parallel ranks
  int64_t num_key_value_heads = 0;  // likewise; fewer than ranks: each is held by several
  int64_t head_dim = 0;
  bool bias = false;     // on q, k, v (Qwen2)
  bool qk_norm = false;  // on each head of q and k (Qwen3)
  double norm_eps = 1e-6;
  double softmax_scale = 0;
  std::vector<float> inverse_frequencies;  // [rotated dims / 2]
  double rope_scale = 1;
  RopePairs rope_pairs = RopePairs::kHalves;
  // Their tensor on the parameters' device, made once: the host waits for such a copy.
  at::Tensor frequencies() const;
  at::TensorOptions options = at::kFloat;  // dtype and device of the parameters
  Communicator* tensor_group = nullptr;    // null: this rank holds every head
};

struct QueriesKeysValues;  // nn/head_operations.h
struct Rotation;

// How kernels are told to rotate; `frequencies` are the settings'.
Rotation rotation(const AttentionSettings& settings, const at::Tensor& positions,
                  const at::Tensor& frequencies);

struct MlaDims {
  int64_t q_lora_rank = 0;  // 0: queries come from the hidden state directly
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  // Under tensor parallelism: the down projections whole on every rank, each of which projects its
  // own tokens, and the latents are gathered; else the projections are divided by rows.
  bool replicate_down = false;
  bool fuse_down = false;  // one product for both down projections; needs q_lora_rank
  // The backward norms anew instead of keeping what was normed: the down projections' input and the
  // latents, gathered again where they are gathered.
  bool recompute_norms = false;
};

class Attention {
 public:
  virtual ~Attention() = default;
  // x [slice, H] (normed), this rank's slice of the micro-batch's B * T tokens -> [slice, H]. With
  // a cache the new tokens follow the cached ones. `remake_x` makes x anew, for an attention that
  // does not keep it.
  virtual at::Tensor forward(const at::Tensor& x, const Remake& remake_x,
                             const MicroBatch& micro_batch, AttentionCache* cache,
                             SegmentRun& run) = 0;
  virtual void visit(const ParameterVisitor& visitor) = 0;
};

// `prefix` ends in "self_attn.".
std::unique_ptr<Attention> make_grouped_query_attention(const std::string& prefix,
                                                        const AttentionSettings& settings);
std::unique_ptr<Attention> make_latent_attention(const std::string& prefix,
                                                 const AttentionSettings& settings,
                                                 const MlaDims& dims);

// q [B, T, N, D], k [B, S, G, D], v [B, S, G, V] -> [B, T, N, V]; causal: query t sees keys <= S -
// T + t. S > T without gradients only.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double softmax_scale, SegmentRun& run);

// The same where tokens see those of their own document only, T = S.
at::Tensor document_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const DocumentBounds& documents, double softmax_scale,
                              SegmentRun& run);

// Where the micro-batch has a cache, its documents continue the cache's sequences, to which their
// keys and values are added; else document_attention(). `cache`: this layer's.
at::Tensor attend(const QueriesKeysValues& qkv, const MicroBatch& micro_batch,
                  AttentionCache* cache, double softmax_scale, SegmentRun& run);

}  // namespace moetron
