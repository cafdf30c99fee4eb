#include "moetron/data/gpt_dataset.h"

#include <numeric>
#include <span>

#include "moetron/base/error.h"

namespace moetron {
namespace {

GptIndex make_index(const IndexedDataset& source, const GptIndexKey& key,
                    const GptDatasetSettings& settings) {
  if (settings.cache_folder.empty()) return GptIndex(source, key);
  return GptIndex(source, key, settings.cache_folder, settings.build_cache);
}

}  // namespace

GptDataset::GptDataset(std::shared_ptr<const IndexedDataset> source, SequenceRange range,
                       int64_t num_samples, const GptDatasetSettings& settings)
    : source_(std::move(source)),
      settings_(settings),
      index_(make_index(*source_, {range, settings.sequence_length, num_samples, settings.seed},
                        settings)) {
  MT_CHECK_CONFIG(!settings.eod_mask_loss || settings.eod_id,
                  "eod-mask-loss needs a tokenizer with an end-of-document token");
}

int64_t GptDataset::size() const {
  return index_.num_samples();
}

TokenSample GptDataset::get(int64_t index) const {
  MT_CHECK(index >= 0 && index < size(), "sample ", index, " of ", size());
  std::vector<int32_t> text;  // [sequence + 1]
  TokenSample sample;
  std::vector<int32_t> bounds;  // of the documents
  read_tokens(index_.shuffled(index), &text, &bounds);
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

void GptDataset::read_tokens(int64_t sample, std::vector<int32_t>* tokens,
                             std::vector<int32_t>* starts) const {
  const auto [first, first_offset] = index_.sample_start(sample);
  const auto [last, last_offset] = index_.sample_start(sample + 1);
  tokens->resize(static_cast<size_t>(settings_.sequence_length) + 1);
  int64_t filled = 0;
  for (int64_t d = first; d <= last; ++d) {
    const int64_t sequence = index_.sequence(d);
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
