#include "moetron/data/sampler.h"

#include "moetron/base/error.h"

namespace moetron {

SequentialSampler::SequentialSampler(const SamplerSettings& settings, int64_t dataset_size,
                                     int64_t consumed_samples)
    : settings_(settings), consumed_(consumed_samples) {
  MT_CHECK(settings.micro_batch_size > 0 && settings.data_parallel_rank >= 0 &&
               settings.data_parallel_rank < settings.data_parallel_size,
           "rank ", settings.data_parallel_rank, " of ", settings.data_parallel_size);
  MT_CHECK_CONFIG(settings.num_samples <= dataset_size, "the run needs ", settings.num_samples,
                  " samples, but the dataset holds ", dataset_size);
  MT_CHECK_CONFIG(consumed_samples >= 0 && consumed_samples <= settings.num_samples,
                  "consumed samples (", consumed_samples, ") must be at most the run's samples (",
                  settings.num_samples, ")");
}

int64_t SequentialSampler::micro_batches_left() const {
  return (settings_.num_samples - consumed_) /
         (settings_.micro_batch_size * settings_.data_parallel_size);
}

SampleRange SequentialSampler::next() {
  MT_CHECK(micro_batches_left() > 0, "no micro-batch left after ", consumed_, " samples");
  const int64_t begin = consumed_ + settings_.data_parallel_rank * settings_.micro_batch_size;
  consumed_ += settings_.micro_batch_size * settings_.data_parallel_size;
  return {begin, begin + settings_.micro_batch_size};
}

}  // namespace moetron
