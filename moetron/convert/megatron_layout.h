// How Megatron divides a model over ranks and files: FOLDER/{release,iter_0000100}/
// mp_rank_TT[_PPP][_EEE]/model_optim_rng.pt, a file for each tensor, pipeline and expert rank, with
// the chunks of a rank under "model", or "model0", "model1", ... where it has several.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moetron/arch/model_config.h"
#include "moetron/arch/stage_layers.h"

namespace moetron {

struct MegatronLayout {
  int64_t tp = 1;
  int64_t tpe = 1;  // tensor parallelism within experts, as Megatron's expert-tensor-parallel-size
  int64_t ep = 1;
  int64_t pp = 1;
  int64_t num_chunks = 1;  // of each rank: its virtual pipeline stages
  // Where stages lie. Chunk c of rank r is stage c * pp + r; with v_placement, which dualpipev has,
  // chunk 1 is stage 2 * pp - 1 - r.
  bool v_placement = false;
  std::vector<int64_t> stage_layers;  // decoder layers of each stage, pp * num_chunks of them
  int64_t padded_vocab = 0;           // rows of the embedding over all tensor-parallel ranks
  // The names: those of TransformerEngine's layers, whose linears hold the norms before them, or
  // of Megatron's own; and experts one by one, or within one grouped linear.
  bool transformer_engine = false;
  bool grouped_experts = false;
  // Instead of either: all experts of a rank in the two parameters of Megatron's former GroupedMLP,
  // experts.weight1 and weight2. They are read, not written.
  bool legacy_experts = false;

  int64_t num_stages() const { return pp * num_chunks; }
};

// The vocabulary as Megatron pads it: to a multiple of make-vocab-size-divisible-by * tp.
int64_t padded_vocab_size(const ModelConfig& config, int64_t divisor, int64_t tp);

// Throws ConfigError, naming the option and both numbers, for what the model cannot be divided into
// and for experts whose ranks Megatron's file names cannot tell apart.
void check_layout(const ModelConfig& config, const MegatronLayout& layout);

// The ranks whose weights a file holds.
struct MegatronRank {
  int64_t tp = 0;
  int64_t tpe = 0;
  int64_t ep = 0;
  int64_t pp = 0;
};

// One for each file, num_files() of them. tpe divides tp.
int64_t num_files(const MegatronLayout& layout);
std::vector<MegatronRank> file_ranks(const MegatronLayout& layout);
// "mp_rank_00_001_007"
std::string rank_folder(const MegatronLayout& layout, const MegatronRank& rank);
// "model", or "model1" where a rank has several.
std::string chunk_key(const MegatronLayout& layout, int64_t chunk);

// Which stage a chunk of a pipeline rank is, and what it holds.
int64_t stage_of(const MegatronLayout& layout, int64_t pp_rank, int64_t chunk);
StageLayers chunk_layers(const MegatronLayout& layout, int64_t pp_rank, int64_t chunk);

}  // namespace moetron
