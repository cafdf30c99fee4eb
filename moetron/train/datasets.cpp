#include "moetron/train/datasets.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/comm/communicator.h"
#include "moetron/data/blend.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

std::string joined(const std::vector<double>& shares) {
  std::string text;
  for (const double share : shares) text += concat(text.empty() ? "" : ",", share);
  return text;
}

GptDatasetSettings dataset_settings(const Options& options, const ModelConfig& model,
                                    const Tokenizer* tokenizer) {
  GptDatasetSettings settings;
  settings.sequence_length = options.training.seq_length;
  settings.seed = static_cast<uint32_t>(options.runtime.seed);
  settings.vocab_size = model.vocab_size;
  settings.eod_mask_loss = options.data.eod_mask_loss;
  settings.reset_position_ids = options.data.reset_position_ids;
  settings.reset_attention_mask = options.data.reset_attention_mask;
  if (tokenizer != nullptr) settings.eod_id = tokenizer->eos_id();
  settings.cache_folder = options.data.data_cache_path;
  return settings;
}

}  // namespace

TrainingData open_datasets(const Options& options, const ModelConfig& model,
                           const Tokenizer* tokenizer, Communicator& world) {
  const PhaseScope phase(world, "opening the data");
  const TrainingOptions& training = options.training;
  MT_CHECK_CONFIG(training.seq_length <= model.max_position_embeddings, "seq-length (",
                  training.seq_length, ") exceeds the model's max_position_embeddings (",
                  model.max_position_embeddings, ")");
  // Megatron's counts: they decide how often data repeats, and so the order.
  const int64_t eval_iters = std::max<int64_t>(training.eval_iters, 0);
  const int64_t evaluations = training.train_iters / training.eval_interval + 1;
  const std::array<int64_t, 3> num_samples = {training.train_iters * training.global_batch_size,
                                              evaluations * eval_iters * training.global_batch_size,
                                              0};
  const DataBlend blend = parse_blend(options.data.data_path);
  GptDatasetSettings settings = dataset_settings(options, model, tokenizer);
  const auto open = [&] {
    return build_gpt_datasets(blend, joined(options.data.split), num_samples, settings);
  };
  DatasetSplits splits;
  if (world.rank() == 0) splits = open();
  world.barrier();
  settings.build_cache = false;
  if (world.rank() != 0) splits = open();

  TrainingData data{std::move(splits[0]), std::move(splits[1]), ""};
  MT_CHECK_CONFIG(data.train != nullptr, "split (", joined(options.data.split),
                  ") leaves no training data");
  for (const std::string& prefix : blend.prefixes) {
    data.description += concat(data.description.empty() ? "" : ", ", prefix);
  }
  data.description += concat(": ", data.train->size(), " training samples");
  if (data.validation != nullptr && eval_iters > 0) {
    data.description += concat(", ", eval_iters * training.global_batch_size, " to validate on");
  }
  if (data.validation == nullptr && eval_iters > 0) {
    log_info("there is no validation: split leaves it no data");
  }
  return data;
}

}  // namespace moetron
