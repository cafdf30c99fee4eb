// Which samples a data-parallel rank takes: in order from consumed_samples, which is the whole
// state of a resumed run.
#pragma once

#include <cstdint>

namespace moetron {

struct SamplerSettings {
  int64_t num_samples = 0;  // of the run (iterations x global batch); never wraps
  int64_t micro_batch_size = 1;
  int64_t data_parallel_size = 1;
  int64_t data_parallel_rank = 0;
};

struct SampleRange {
  int64_t begin = 0;
  int64_t end = 0;
};

class SequentialSampler {
 public:
  // Throws ConfigError when the dataset holds fewer than num_samples samples, or when more than
  // these are consumed.
  SequentialSampler(const SamplerSettings& settings, int64_t dataset_size,
                    int64_t consumed_samples);

  // Micro-batches left; a last one that would not fill every rank is dropped.
  int64_t micro_batches_left() const;
  // Samples of this rank's next micro-batch k: consumed + [rank * m, (rank + 1) * m), whereupon
  // consumed grows by m * data_parallel_size. InternalError when none is left.
  SampleRange next();
  int64_t consumed_samples() const { return consumed_; }

 private:
  SamplerSettings settings_;
  int64_t consumed_;
};

}  // namespace moetron
