#include "moetron/train/datasets.h"

#include <algorithm>
#include <chrono>

#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/comm/communicator.h"
#include "moetron/data/blend.h"
#include "moetron/data/mock_dataset.h"
#include "moetron/data/token_check.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

// Of the look at all tokens, for each prefix.
constexpr std::chrono::seconds kCheckTime{60};

std::string joined(const std::vector<double>& shares) {
  std::string text;
  for (const double share : shares) text += concat(text.empty() ? "" : ",", share);
  return text;
}

GptDatasetSettings dataset_settings(const RunSpec& spec, const Tokenizer* tokenizer) {
  GptDatasetSettings settings;
  settings.sequence_length = spec.batch.seq_length;
  settings.seed = static_cast<uint32_t>(spec.seed);
  settings.vocab_size = spec.model.vocab_size;
  settings.eod_mask_loss = spec.data.eod_mask_loss;
  settings.reset_position_ids = spec.data.reset_position_ids;
  settings.reset_attention_mask = spec.data.reset_attention_mask;
  if (tokenizer != nullptr) settings.eod_id = tokenizer->eos_id();
  settings.cache_folder = spec.data.cache_path;
  return settings;
}

// The sequences that a run reads: training and validation lie side by side.
SequenceRange used_range(const IndexedDataset& source, const RunSpec& spec) {
  const auto ranges = split_sequences(joined(spec.data.split), source.num_sequences());
  return {ranges[0].begin, spec.steps.eval > 0 ? ranges[1].end : ranges[0].end};
}

// Every rank looks at its share.
void check_vocabulary(const std::string& prefix, const RunSpec& spec, Communicator& world) {
  const IndexedDataset source(prefix);
  const SequenceRange range = used_range(source, spec);
  const int64_t vocabulary = spec.model.vocab_size;
  const std::string& cache = spec.data.cache_path;
  const int64_t is_known = on_rank_zero(
      &world, [&] { return int64_t{tokens_were_checked(source, range, vocabulary, cache)}; });
  if (is_known == 1) return;
  const std::vector<int64_t> ended = on_all_ranks(&world, [&] {
    const CheckShare share{world.rank(), world.size(), at::get_num_threads()};
    return int64_t{check_tokens(source, range, vocabulary, share, kCheckTime)};
  });
  if (std::all_of(ended.begin(), ended.end(), [](int64_t end) { return end == 1; })) {
    on_rank_zero(&world, [&] {
      note_checked_tokens(source, range, vocabulary, cache);
      return 0;
    });
    return;
  }
  log_info(concat("not every token of ", prefix, " could be looked at within ", kCheckTime.count(),
                  " s: one outside the vocabulary would end the run when it is met, after a save"));
}

int64_t times(int64_t a, int64_t b) {
  int64_t product = 0;
  MT_CHECK_CONFIG(!__builtin_mul_overflow(a, b, &product),
                  "train-iters, eval-iters and "
                  "global-batch-size ask for more samples than 64 bits count: ",
                  a, " times ", b);
  return product;
}

void check_size(const TokenDataset& dataset, int64_t needed, const char* what) {
  MT_CHECK_CONFIG(needed <= dataset.size(), "the run needs ", needed, " samples for ", what,
                  ", but data-path holds ", dataset.size());
}

}  // namespace

SampleCounts sample_counts(const RunSpec& spec) {
  const StepsSpec& steps = spec.steps;
  const int64_t batch = spec.batch.global_batch_size;
  const int64_t evaluations = steps.train / steps.eval_interval + 1;
  return {{times(steps.train, batch)}, {times(times(evaluations, steps.eval), batch)}, 0};
}

namespace {

TrainingData mock_datasets(const RunSpec& spec, const SampleCounts& counts) {
  const auto seed = static_cast<uint64_t>(spec.seed);
  const auto make = [&](const char* name, int64_t size) {
    return std::make_unique<MockDataset>(seed, name, size, spec.batch.seq_length,
                                         spec.model.vocab_size);
  };
  TrainingData data{make("training", counts.train.back())};
  data.description = concat("random tokens: ", data.train->size(), " training samples");
  if (spec.steps.eval > 0) {
    const int64_t evaluated = spec.steps.eval * spec.batch.global_batch_size;
    data.validation = make("validation", evaluated);
    data.description += concat(", ", evaluated, " to validate on");
  }
  return data;
}

}  // namespace

TrainingData open_datasets(const RunSpec& spec, const SampleCounts& counts, int64_t first_sample,
                           const Tokenizer* tokenizer, Communicator& world) {
  const PhaseScope phase(world, "opening the data");
  if (spec.data.mock) return mock_datasets(spec, counts);
  const DataBlend blend = parse_blend(spec.data.path);
  for (const std::string& prefix : blend.prefixes) check_vocabulary(prefix, spec, world);
  GptDatasetSettings settings = dataset_settings(spec, tokenizer);
  settings.first_sample = first_sample;
  DatasetSplits splits;
  const auto open = [&] {
    splits = build_gpt_datasets(blend, joined(spec.data.split),
                                {counts.train, counts.validation, {}}, settings);
    return 0;
  };
  on_rank_zero(&world, open);
  settings.build_cache = false;
  on_all_ranks(&world, [&] { return world.rank() == 0 ? 0 : open(); });

  TrainingData data{std::move(splits[0]), std::move(splits[1])};
  MT_CHECK_CONFIG(data.train != nullptr, "split (", joined(spec.data.split),
                  ") leaves no training data");
  const int64_t evaluated = spec.steps.eval * spec.batch.global_batch_size;
  check_size(*data.train, counts.train.back(), "training");
  if (data.validation != nullptr) check_size(*data.validation, evaluated, "an evaluation");
  for (const std::string& prefix : blend.prefixes) {
    data.description += concat(data.description.empty() ? "" : ", ", prefix);
  }
  data.description += concat(": ", data.train->size(), " training samples");
  if (data.validation != nullptr && spec.steps.eval > 0) {
    data.description += concat(", ", evaluated, " to validate on");
  }
  if (data.validation == nullptr && spec.steps.eval > 0) {
    log_info("there is no validation: split leaves it no data");
  }
  return data;
}

}  // namespace moetron
