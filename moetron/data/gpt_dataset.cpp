#include "moetron/data/gpt_dataset.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// A run goes from one pass to the next, and evaluates in between.
constexpr size_t kMostKept = 2;

}  // namespace

GptDataset::GptDataset(std::shared_ptr<const IndexedDataset> source, SequenceRange range,
                       std::span<const int64_t> counts, const GptDatasetSettings& settings)
    : source_(std::move(source)),
      settings_(settings),
      passes_(*source_, {range, settings.sequence_length, 0, settings.seed}, counts,
              settings.limits) {
  MT_CHECK_CONFIG(!settings.eod_mask_loss || settings.eod_id,
                  "eod-mask-loss needs a tokenizer with an end-of-document token");
  prepare_indices();
}

// What ranks share in the cache is there before any of them reads. A pass that comes behind others
// of its size is left to whoever gets that far.
void GptDataset::prepare_indices() const {
  const int64_t first = std::min(settings_.first_sample, size() - 1);
  const SamplePasses::Pass now = passes_.of_sample(first);
  if (settings_.cache_folder.empty()) {
    index_of(now);
    return;
  }
  for (const SamplePasses::Pass& pass : passes_.distinct_from(first)) {
    auto index = std::make_shared<const GptIndex>(*source_, pass.key, settings_.cache_folder,
                                                  settings_.build_cache);
    if (pass.number == now.number) kept_[pass.number] = std::move(index);
  }
}

std::shared_ptr<const GptIndex> GptDataset::index_of(const SamplePasses::Pass& pass) const {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const GptIndex>& index = kept_[pass.number];
  if (index == nullptr && !settings_.cache_folder.empty()) {
    try {
      index = std::make_shared<const GptIndex>(*source_, pass.key, settings_.cache_folder,
                                               /*build=*/false);
    } catch (const InputError&) {  // not one of those that were prepared
    }
  }
  if (index == nullptr) index = std::make_shared<const GptIndex>(*source_, pass.key);
  std::shared_ptr<const GptIndex> found = index;
  while (kept_.size() > kMostKept) {
    kept_.erase(kept_.begin()->first == pass.number ? std::prev(kept_.end()) : kept_.begin());
  }
  return found;
}

TokenSample GptDataset::get(int64_t index) const {
  MT_CHECK(index >= 0 && index < size(), "sample ", index, " of ", size());
  std::vector<int32_t> text;  // [sequence + 1]
  TokenSample sample;
  std::vector<int32_t> bounds;  // of the documents
  const SamplePasses::Pass pass = passes_.of_sample(index);
  const std::shared_ptr<const GptIndex> samples = index_of(pass);
  read_tokens(*samples, samples->shuffled(index - pass.begin), &text, &bounds);
  sample.tokens.assign(text.begin(), text.end() - 1);
  sample.labels.assign(text.begin() + 1, text.end());
  const size_t length = sample.tokens.size();
  sample.loss_weights.assign(length, 1.0f);
  if (settings_.eod_mask_loss)
    for (size_t i = 0; i < length; ++i)
      if (sample.tokens[i] == *settings_.eod_id) sample.loss_weights[i] = 0.0f;
  if (bounds.back() == static_cast<int32_t>(length))
    bounds.pop_back();  // a document of which only the last label is here
  bounds.push_back(static_cast<int32_t>(length));
  sample.positions.resize(length);
  std::iota(sample.positions.begin(), sample.positions.end(), 0);
  if (settings_.reset_position_ids)
    for (size_t d = 0; d + 1 < bounds.size(); ++d)
      std::iota(sample.positions.begin() + bounds[d], sample.positions.begin() + bounds[d + 1], 0);
  if (!settings_.reset_attention_mask) bounds = {0, static_cast<int32_t>(length)};
  sample.document_bounds = std::move(bounds);
  return sample;
}

void GptDataset::read_tokens(const GptIndex& index, int64_t sample, std::vector<int32_t>* tokens,
                             std::vector<int32_t>* starts) const {
  const auto [first, first_offset] = index.sample_start(sample);
  const auto [last, last_offset] = index.sample_start(sample + 1);
  tokens->resize(static_cast<size_t>(settings_.sequence_length) + 1);
  int64_t filled = 0;
  for (int64_t d = first; d <= last; ++d) {
    const int64_t sequence = index.sequence(d);
    const int64_t begin = d == first ? first_offset : 0;
    const int64_t end = d == last ? last_offset + 1 : source_->sequence_length(sequence);
    const bool sound = begin <= end && end <= source_->sequence_length(sequence) &&
                       filled + end - begin <= settings_.sequence_length + 1;
    MT_CHECK_INPUT(sound, "damaged dataset cache: sample ", sample, " of ", source_->prefix(),
                   " takes tokens [", begin, ", ", end, ") of sequence ", sequence);
    if (begin == end) continue;
    starts->push_back(static_cast<int32_t>(filled));
    source_->get(
        sequence, begin,
        std::span(*tokens).subspan(static_cast<size_t>(filled), static_cast<size_t>(end - begin)));
    filled += end - begin;
  }
  MT_CHECK_INPUT(filled == settings_.sequence_length + 1, "damaged dataset cache: sample ", sample,
                 " of ", source_->prefix(), " has ", filled, " tokens");
  if (settings_.vocab_size == 0) return;
  for (const int32_t token : *tokens)
    MT_CHECK_INPUT(token >= 0 && token < settings_.vocab_size, source_->prefix(),
                   ".bin holds the token ", token, ", outside the vocabulary of ",
                   settings_.vocab_size);
}

}  // namespace moetron
