// From dataset samples to the micro-batches of a step, with the counts that losses are divided by.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <vector>

#include <c10/core/Event.h>

#include "moetron/comm/communicator.h"
#include "moetron/parallel/micro_batch.h"

namespace moetron {

class Mesh;
class SequentialSampler;
class TokenDataset;

struct BatchSettings {
  int64_t micro_batch_size = 1;   // sequences
  int64_t global_batch_size = 1;  // sequences, over all data-parallel ranks
  c10::Device device = at::kCPU;  // where the micro-batches are put
  // Samples 2i and 2i + 1 are the chosen and the rejected answer to one prompt: both sizes are
  // even.
  bool pairs = false;
};

// What a rank works on in one step.
struct StepBatch {
  std::vector<MicroBatch> micro_batches;
  // Of pairs, what the reference says of each micro-batch's samples: [batch] fp64, on its device.
  std::vector<at::Tensor> references;
  double divisor = 0;      // weights of all labels of the global batch: as many as there are
                           // labelled tokens, where each weighs 1; or its pairs
  int64_t num_tokens = 0;  // of the global batch, without padding
  // Of this rank's tokens without padding: how many there are, and the sum of the lengths of their
  // documents.
  double own_tokens = 0, own_lengths = 0;

  // The gradient of the weighted mean over the labels with respect to their sum.
  double d_loss() const { return divisor > 0 ? 1.0 / divisor : 1.0; }
  // The factor of the aux losses, which are means over tokens times their number.
  double d_aux() const { return num_tokens > 0 ? 1.0 / static_cast<double>(num_tokens) : 0; }
  // Of a token's document on average; 0 where all is padding.
  double mean_length() const { return own_tokens > 0 ? own_lengths / own_tokens : 0; }
  double mean(double sum) const { return divisor > 0 ? sum / divisor : 0; }
};

// A batch whose counts are being summed over the data-parallel ranks: what is begun before a step
// is complete, and nobody waits for the device, when the step behind it begins.
class PendingStepBatch {
 public:
  // The global batch that begins at `consumed_samples`: micro-batch k of rank r takes the samples
  // consumed + [(k * ranks + r) * m, + m). Collective over the mesh's data-parallel ranks. With
  // `training`, routers count its tokens.
  PendingStepBatch(const TokenDataset& dataset, int64_t consumed_samples,
                   const BatchSettings& settings, Mesh& mesh, bool training);

  // Why this rank could not make its part; null: it could. All ranks must know before finish().
  const std::exception_ptr& failure() const { return failure_; }
  // Once. Throws InputError, on every data-parallel rank, where data of any of them cannot be read
  // or is outside the vocabulary.
  StepBatch finish();

 private:
  void make(const TokenDataset& dataset, SequentialSampler& sampler, const BatchSettings& settings,
            Mesh& mesh, bool training);
  void sum_counts(c10::Device device, Communicator& data);

  StepBatch batch_;
  std::exception_ptr failure_;
  at::Tensor sums_;                 // [3] fp64 on the host: divisor, tokens, ranks that failed
  at::Tensor on_device_;            // the same on a GPU
  Work summing_;                    // of a CPU
  std::optional<c10::Event> done_;  // of a GPU: the sums have come to the host
};

// The same at once.
StepBatch load_step_batch(const TokenDataset& dataset, int64_t consumed_samples,
                          const BatchSettings& settings, Mesh& mesh, bool training);

}  // namespace moetron
