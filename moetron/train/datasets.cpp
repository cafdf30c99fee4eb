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

}  // namespace

TrainingData open_datasets(const RunSpec& spec, const Tokenizer* tokenizer, Communicator& world) {
  const PhaseScope phase(world, "opening the data");
  // Megatron's counts: they decide how often data repeats, and so the order.
  const StepsSpec& steps = spec.steps;
  const int64_t batch = spec.batch.global_batch_size;
  const int64_t evaluations = steps.train / steps.eval_interval + 1;
  const std::array<int64_t, 3> num_samples = {steps.train * batch, evaluations * steps.eval * batch,
                                              0};
  const DataBlend blend = parse_blend(spec.data.path);
  GptDatasetSettings settings = dataset_settings(spec, tokenizer);
  const auto open = [&] {
    return build_gpt_datasets(blend, joined(spec.data.split), num_samples, settings);
  };
  DatasetSplits splits;
  if (world.rank() == 0) splits = open();
  world.barrier();
  settings.build_cache = false;
  if (world.rank() != 0) splits = open();

  TrainingData data{std::move(splits[0]), std::move(splits[1]), ""};
  MT_CHECK_CONFIG(data.train != nullptr, "split (", joined(spec.data.split),
                  ") leaves no training data");
  for (const std::string& prefix : blend.prefixes) {
    data.description += concat(data.description.empty() ? "" : ", ", prefix);
  }
  data.description += concat(": ", data.train->size(), " training samples");
  if (data.validation != nullptr && steps.eval > 0) {
    data.description += concat(", ", steps.eval * batch, " to validate on");
  }
  if (data.validation == nullptr && steps.eval > 0) {
    log_info("there is no validation: split leaves it no data");
  }
  return data;
}

}  // namespace moetron
