// From dataset samples to the micro-batches of a step, with the counts that losses are divided by.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "moetron/pipeline/micro_batch.h"

namespace moetron {

class Communicator;
class TokenDataset;

struct BatchSettings {
  int64_t micro_batch_size = 1;   // sequences
  int64_t global_batch_size = 1;  // sequences, over all data-parallel ranks
  c10::Device device = at::kCPU;  // where the micro-batches are put
};

// What a rank works on in one step.
struct StepBatch {
  std::vector<MicroBatch> micro_batches;
  int64_t num_targets = 0;  // labelled tokens of the whole global batch
  int64_t num_tokens = 0;   // tokens of the whole global batch

  // The gradient of the mean over the labelled tokens with respect to their sum.
  double d_loss() const { return 1.0 / static_cast<double>(std::max<int64_t>(num_targets, 1)); }
};

// The global batch that begins at `consumed_samples`: micro-batch k of rank r takes the samples
// consumed + [(k * ranks + r) * m, + m). Collective over `data_parallel` (one integer sum).
StepBatch load_step_batch(const TokenDataset& dataset, int64_t consumed_samples,
                          const BatchSettings& settings, Communicator& data_parallel,
                          bool training);

}  // namespace moetron
