// The training and validation data of a run.
#pragma once

#include <memory>
#include <string>

#include "moetron/data/token_dataset.h"
#include "moetron/run/run_spec.h"

namespace moetron {

class Communicator;
class Tokenizer;

struct TrainingData {
  std::unique_ptr<TokenDataset> train;
  std::unique_ptr<TokenDataset> validation;  // null where the split or eval-iters leave none
  std::string description;                   // for the summary at start
};

// Opens --data-path with Megatron's split and sample order. Rank 0 writes the index cache, the
// others wait for it. Collective over `world`. `tokenizer` may be null unless --eod-mask-loss needs
// it.
TrainingData open_datasets(const RunSpec& spec, const Tokenizer* tokenizer, Communicator& world);

}  // namespace moetron
