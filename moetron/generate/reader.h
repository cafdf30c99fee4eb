// A model that reads texts bit by bit and remembers what it has read: what generation draws from.
// The model may be whole, or divided among ranks as in training (tensor, expert and pipeline
// parallelism); data-parallel ranks read the same.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/models/tied_weight.h"
#include "moetron/nn/attention_cache.h"
#include "moetron/pipeline/executor.h"
#include "moetron/pipeline/stage_links.h"
#include "moetron/run/run_spec.h"

namespace moetron {

class Mesh;
class Model;

// The next tokens of a sequence, which numbers name.
struct NewTokens {
  int64_t sequence = 0;
  std::vector<int32_t> tokens;  // at least one
};

class TextReader {
 public:
  // Collective; the references outlive the object.
  TextReader(Model& model, Mesh& mesh, const PipelineSettings& pipeline);

  const Model& model() const { return model_; }
  // Continues the sequences, each named once -> the logits behind the last token of each,
  // [sequences, vocab] fp32 in host memory, with the same bits on every rank. Collective: every
  // rank gives the same.
  at::Tensor read(const std::vector<NewTokens>& next);

  // To be called when weights have changed since the last read(); what was read is forgotten.
  void weights_changed();

  int64_t length(int64_t sequence) const;  // tokens read of it; 0: none
  // Forgets all but the first `tokens` of a sequence.
  void truncate(int64_t sequence, int64_t tokens);

 private:
  MicroBatch micro_batch(const std::vector<NewTokens>& next);
  at::Tensor shared(const at::Tensor& logits, int64_t num_sequences);

  Model& model_;
  Mesh& mesh_;
  StageLinks links_;
  PipelineExecutor executor_;
  PipelinePlan plan_;
  int head_rank_;  // of the world: one that has the logits
  std::vector<std::unique_ptr<TiedWeight>> ties_;
  bool shares_ties_ = true;  // before the next read()
  KeyValueCache cache_;
  std::map<int64_t, int64_t> lengths_;  // by sequence
};

}  // namespace moetron
