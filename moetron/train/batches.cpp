#include "moetron/train/batches.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/comm/communicator.h"
#include "moetron/data/sampler.h"
#include "moetron/data/token_dataset.h"
#include "moetron/nn/loss.h"

namespace moetron {
namespace {

MicroBatch load_micro_batch(const TokenDataset& dataset, const SampleRange& range) {
  const int64_t batch = range.end - range.begin;
  const int64_t seq = dataset.sequence_length();
  MicroBatch micro_batch;
  micro_batch.tokens = at::empty({batch, seq}, at::kLong);
  micro_batch.labels = at::empty({batch, seq}, at::kLong);
  micro_batch.positions = at::empty({batch, seq}, at::kLong);
  for (int64_t row = 0; row < batch; ++row) {
    const TokenSample sample = dataset.get(range.begin + row);
    std::copy(sample.tokens.begin(), sample.tokens.end(),
              micro_batch.tokens.data_ptr<int64_t>() + row * seq);
    std::copy(sample.positions.begin(), sample.positions.end(),
              micro_batch.positions.data_ptr<int64_t>() + row * seq);
    int64_t* labels = micro_batch.labels.data_ptr<int64_t>() + row * seq;
    for (int64_t i = 0; i < seq; ++i) {
      const auto place = static_cast<size_t>(i);
      labels[i] = sample.loss_mask[place] > 0 ? sample.labels[place] : kIgnoredLabel;
    }
  }
  return micro_batch;
}

}  // namespace

StepBatch load_step_batch(const TokenDataset& dataset, int64_t consumed_samples,
                          const BatchSettings& settings, Communicator& data_parallel,
                          bool training) {
  SequentialSampler sampler({.num_samples = consumed_samples + settings.global_batch_size,
                             .micro_batch_size = settings.micro_batch_size,
                             .data_parallel_size = data_parallel.size(),
                             .data_parallel_rank = data_parallel.rank()},
                            dataset.size(), consumed_samples);
  StepBatch step;
  at::Tensor targets = at::zeros({1}, at::kLong);
  while (sampler.micro_batches_left() > 0) {
    MicroBatch micro_batch = load_micro_batch(dataset, sampler.next());
    micro_batch.training = training;
    targets.add_(micro_batch.labels.ne(kIgnoredLabel).sum());
    for (at::Tensor* tensor : {&micro_batch.tokens, &micro_batch.labels, &micro_batch.positions}) {
      *tensor = tensor->to(settings.device);
    }
    step.micro_batches.push_back(std::move(micro_batch));
  }
  targets = targets.to(settings.device);
  data_parallel.all_reduce(targets).wait();
  step.num_targets = targets.item<int64_t>();
  for (MicroBatch& micro_batch : step.micro_batches) micro_batch.d_loss = step.d_loss();
  step.num_tokens = settings.global_batch_size * dataset.sequence_length();
  return step;
}

}  // namespace moetron
