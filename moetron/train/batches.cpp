#include "moetron/train/batches.h"

#include <algorithm>
#include <functional>

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "moetron/base/error.h"
#include "moetron/data/sampler.h"
#include "moetron/data/token_dataset.h"
#include "moetron/nn/loss.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

// Fills the record of one micro-batch on the host, from where it goes to the device at once: from
// pinned memory, so that nobody waits for the copy.
class MicroBatchBuilder {
 public:
  MicroBatchBuilder(int64_t batch, int64_t seq, c10::Device device)
      : batch_(batch),
        seq_(seq),
        device_(device),
        references_(at::empty({batch}, on_host(at::kDouble))),
        tokens_(empty(at::kLong)),
        labels_(empty(at::kLong)),
        positions_(empty(at::kLong)),
        weights_(empty(at::kFloat)),
        padding_(static_cast<size_t>(batch * seq), false) {}

  void add(const TokenSample& sample) {
    check(sample);
    const int64_t begin = num_rows_ * seq_;
    std::copy(sample.tokens.begin(), sample.tokens.end(), tokens_.data_ptr<int64_t>() + begin);
    std::copy(sample.positions.begin(), sample.positions.end(),
              positions_.data_ptr<int64_t>() + begin);
    int64_t* labels = labels_.data_ptr<int64_t>() + begin;
    float* weights = weights_.data_ptr<float>() + begin;
    references_.data_ptr<double>()[num_rows_] = sample.reference_log_probability;
    bool has_label = false;
    for (int64_t i = 0; i < seq_; ++i) {
      const auto place = static_cast<size_t>(i);
      weights[i] = sample.loss_weights[place];
      labels[i] = weights[i] > 0 ? sample.labels[place] : kIgnoredLabel;
      divisor_ += weights[i];
      has_label = has_label || weights[i] > 0;
      is_weighted_ = is_weighted_ || (weights[i] != 0 && weights[i] != 1);
    }
    add_documents(sample.document_bounds, begin);
    count_pair(has_label);
    ++num_rows_;
  }

  double divisor() const { return divisor_; }
  double sum_of_lengths() const { return sum_of_lengths_; }
  // Of samples that are pairs; those that are padding alone do not count.
  double num_pairs() const { return num_pairs_; }
  at::Tensor references() const { return to_device(references_); }

  MicroBatch finish(Communicator* tensor_group, bool training) {
    MT_CHECK(num_rows_ == batch_, "a micro-batch of ", num_rows_, " sequences, not ", batch_);
    MicroBatch made;
    made.tokens = to_device(tokens_);
    made.labels = to_device(labels_);
    made.positions = to_device(positions_);
    if (is_weighted_) made.loss_weights = to_device(weights_);
    made.layout = TokenLayout(tensor_group, batch_ * seq_);
    made.num_real_tokens = batch_ * seq_ - num_padding_;
    if (num_padding_ > 0) made.padding = to_device(local_padding(made.layout));
    if (has_documents_) made.documents = documents();
    made.training = training;
    return made;
  }

 private:
  at::TensorOptions on_host(at::ScalarType dtype) const {
    return at::TensorOptions(dtype).pinned_memory(device_.is_cuda());
  }
  at::Tensor empty(at::ScalarType dtype) const { return at::empty({batch_, seq_}, on_host(dtype)); }
  at::Tensor to_device(const at::Tensor& x) const {
    return x.to(x.options().device(device_).pinned_memory(false), /*non_blocking=*/true);
  }

  // What a dataset promises (data/token_dataset.h): else numbers would be wrong without a word.
  void check(const TokenSample& sample) const {
    const std::vector<int32_t>& bounds = sample.document_bounds;
    const bool ascends =
        !bounds.empty() && bounds.front() == 0 && bounds.back() <= seq_ &&
        std::adjacent_find(bounds.begin(), bounds.end(), std::greater_equal<>()) == bounds.end();
    MT_CHECK(ascends, "a sample's documents do not follow each other from 0 to at most ", seq_);
    const auto& weights = sample.loss_weights;
    MT_CHECK(std::all_of(weights.begin(), weights.end(), [](float w) { return w >= 0; }),
             "a sample has a label of negative weight");
    MT_CHECK(
        std::all_of(weights.begin() + bounds.back(), weights.end(), [](float w) { return w == 0; }),
        "a sample's padding has a label");
  }

  void count_pair(bool has_label) {
    const bool is_second = num_rows_ % 2 == 1;
    is_pair_ = is_second ? is_pair_ && has_label : has_label;
    num_pairs_ += is_second && is_pair_ ? 1 : 0;
  }

  // Tokens from the last bound on are padding, which sees itself alone.
  void add_documents(const std::vector<int32_t>& bounds, int64_t begin) {
    has_documents_ = has_documents_ || bounds.size() > 2;
    for (const int32_t bound : bounds) {
      if (bound < seq_) bounds_.push_back(begin + bound);
    }
    for (size_t i = 1; i < bounds.size(); ++i) {
      const double length = bounds[i] - bounds[i - 1];
      sum_of_lengths_ += length * length;
    }
    const int64_t end = bounds.back();
    num_padding_ += seq_ - end;
    std::fill(padding_.begin() + begin + end, padding_.begin() + begin + seq_, true);
  }

  DocumentBounds documents() {
    bounds_.push_back(batch_ * seq_);
    const at::Tensor starts = at::empty({static_cast<int64_t>(bounds_.size())}, on_host(at::kInt));
    std::copy(bounds_.begin(), bounds_.end(), starts.data_ptr<int32_t>());
    return {std::move(bounds_), to_device(starts)};
  }

  at::Tensor local_padding(const TokenLayout& layout) const {
    const at::Tensor mine = at::empty({layout.num_local()}, on_host(at::kBool));
    bool* next = mine.data_ptr<bool>();
    for (const auto& [begin, count] : layout.stretches) {
      next = std::copy(padding_.begin() + begin, padding_.begin() + begin + count, next);
    }
    return mine;
  }

  int64_t batch_, seq_;
  c10::Device device_;
  at::Tensor references_, tokens_, labels_, positions_, weights_;
  std::vector<bool> padding_;
  std::vector<int64_t> bounds_;  // of documents, without the end of the last
  int64_t num_rows_ = 0;
  int64_t num_padding_ = 0;
  double divisor_ = 0;
  double num_pairs_ = 0;
  double sum_of_lengths_ = 0;   // over tokens that are no padding: of the document of each
  bool is_pair_ = false;        // the last row's, so far
  bool is_weighted_ = false;    // some label weighs neither 0 nor 1
  bool has_documents_ = false;  // some sequence has several
};

}  // namespace

PendingStepBatch::PendingStepBatch(const TokenDataset& dataset, int64_t consumed_samples,
                                   const BatchSettings& settings, Mesh& mesh, bool training) {
  SequentialSampler sampler({.num_samples = consumed_samples + settings.global_batch_size,
                             .micro_batch_size = settings.micro_batch_size,
                             .data_parallel_size = mesh.data().size(),
                             .data_parallel_rank = mesh.data().rank()},
                            dataset.size(), consumed_samples);
  MT_CHECK(!settings.pairs || settings.micro_batch_size % 2 == 0, "a micro-batch of ",
           settings.micro_batch_size, " sequences parts a pair");
  sums_ = at::zeros({3}, at::TensorOptions(at::kDouble).pinned_memory(settings.device.is_cuda()));
  try {
    make(dataset, sampler, settings, mesh, training);
  } catch (const InputError&) {  // the others wait for this rank's counts
    failure_ = std::current_exception();
    sums_.data_ptr<double>()[2] = 1;
  }
  sum_counts(settings.device, mesh.data());
}

// Nobody waits here: the step before computes meanwhile, on a GPU on another stream.
void PendingStepBatch::sum_counts(c10::Device device, Communicator& data) {
  if (!device.is_cuda()) {
    summing_ = data.all_reduce(sums_);
    return;
  }
  const c10::Stream side =
      c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  const c10::StreamGuard guard(side);
  on_device_ = sums_.to(device, /*non_blocking=*/true);
  data.all_reduce(on_device_).wait();  // the stream does
  sums_.copy_(on_device_, /*non_blocking=*/true);
  done_.emplace(device.type());
  done_->record(side);
}

void PendingStepBatch::make(const TokenDataset& dataset, SequentialSampler& sampler,
                            const BatchSettings& settings, Mesh& mesh, bool training) {
  double* sums = sums_.data_ptr<double>();
  while (sampler.micro_batches_left() > 0) {
    const SampleRange range = sampler.next();
    MicroBatchBuilder builder(range.end - range.begin, dataset.sequence_length(), settings.device);
    for (int64_t sample = range.begin; sample < range.end; ++sample) {
      builder.add(dataset.get(sample));
    }
    batch_.micro_batches.push_back(builder.finish(mesh.tensor_group(), training));
    if (settings.pairs) {
      batch_.micro_batches.back().wants_log_probabilities = true;
      batch_.references.push_back(builder.references());
    }
    sums[0] += settings.pairs ? builder.num_pairs() : builder.divisor();
    const auto real = static_cast<double>(batch_.micro_batches.back().num_real_tokens);
    sums[1] += real;
    batch_.own_tokens += real;
    batch_.own_lengths += builder.sum_of_lengths();
  }
}

StepBatch PendingStepBatch::finish() {
  if (failure_ != nullptr) std::rethrow_exception(failure_);
  summing_.wait();
  if (done_) done_->synchronize();
  const double* sums = sums_.const_data_ptr<double>();
  MT_CHECK_INPUT(sums[2] == 0, "data of another rank cannot be read");
  batch_.divisor = sums[0];
  batch_.num_tokens = static_cast<int64_t>(sums[1]);
  for (MicroBatch& micro_batch : batch_.micro_batches) {
    micro_batch.d_loss = batch_.d_loss();
    micro_batch.d_aux = batch_.d_aux();
  }
  return std::move(batch_);
}

StepBatch load_step_batch(const TokenDataset& dataset, int64_t consumed_samples,
                          const BatchSettings& settings, Mesh& mesh, bool training) {
  return PendingStepBatch(dataset, consumed_samples, settings, mesh, training).finish();
}

}  // namespace moetron
