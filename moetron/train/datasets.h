// The training and validation data of a run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "moetron/data/token_dataset.h"
#include "moetron/run/run_spec.h"

namespace moetron {

class Communicator;
class References;
class Tokenizer;

// For how many samples the orders of a run are made (data/sample_passes.h): those of the runs that
// it continues, then its own. They decide how often data repeats, and so the order.
struct SampleCounts {
  std::vector<int64_t> train;
  std::vector<int64_t> validation;
  int64_t begin = 0;  // samples that were consumed before the present order began
};
// Megatron's, of a run that continues none.
SampleCounts sample_counts(const RunSpec& spec);

struct TrainingData {
  std::unique_ptr<TokenDataset> train;
  std::unique_ptr<TokenDataset> validation =
      nullptr;                   // null where the split or eval-iters leave none
  std::string description = "";  // for the summary at start
  std::string sample = "";       // shown before the first step; empty: none
  // Of pairs: to be filled before a sample is asked for (train/reference.h); else null.
  std::shared_ptr<References> references = nullptr;
};

// Opens --data-path with Megatron's split and sample order. Rank 0 writes the index cache, the
// others wait for it. The first sample that will be read is `first_sample`. `tokenizer` may be null
// unless --eod-mask-loss needs it. Every token is looked at, as far as a minute allows, unless the
// cache says that this was done; throws InputError for one outside the vocabulary, and ConfigError
// for too little data, on all ranks. Collective over `world`.
TrainingData open_datasets(const RunSpec& spec, const SampleCounts& counts, int64_t first_sample,
                           const Tokenizer* tokenizer, Communicator& world);

}  // namespace moetron
