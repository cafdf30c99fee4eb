// What is known of one training step, and its one-line JSON form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/base/json.h"
#include "moetron/metrics/activation_memory.h"
#include "moetron/metrics/bit_receipt.h"
#include "moetron/metrics/router_balance.h"
#include "moetron/metrics/save_record.h"

namespace moetron {

// Of preference tuning: means over the pairs of a step, under TRL's names. The reward of an answer
// is beta times what the model's log-probability of it has over the reference's.
struct Rewards {
  double chosen = 0;
  double rejected = 0;
  double accuracies = 0;  // share of the pairs whose chosen answer has the higher reward
  double margins = 0;     // chosen less rejected
};

// What a model that is fine-tuned answers between two steps.
struct SampleAnswer {
  std::string prompt;
  std::string answer;
  std::string in_data;  // the answer that the data gives
};

struct StepRecord {
  int64_t step = 0;
  double loss = 0.0;  // mean over the step's target tokens, or pairs, without aux losses
  std::optional<Rewards> rewards;
  std::optional<double> aux_loss;
  std::optional<double> grad_norm;           // before clipping
  std::optional<double> params_norm;         // of all parameters, behind the update
  std::optional<int64_t> num_zeros_in_grad;  // of the elements of all gradients
  double lr = 0.0;
  double tokens_per_second = 0.0;  // per device
  double tflops_per_second = 0.0;  // per device, model FLOPs
  std::optional<double> mfu;       // share of the device's peak, 0 to 1
  int64_t memory_bytes = 0;        // peak of the rank that keeps the record
  double seconds = 0.0;            // of one step
  int64_t consumed_samples = 0;    // since the start of training
  std::optional<double> validation_loss;
  std::optional<Rewards> validation_rewards;
  std::vector<SampleAnswer> samples;
  std::optional<RouterBalance> router_balance;
  std::optional<ActivationMemory> activation_memory;  // of the step's first micro-batch, rank 0
  std::optional<BitReceipt> receipt;
  std::vector<SaveRecord> saves;  // that ended, well or not, since the step before
  // Of the first step behind a stop: the run went on from a checkpoint, and does so many steps
  // again.
  std::optional<int64_t> resume_repeats;
};

// Of a validation loss per token: its exponential. Nothing where the loss is one of pairs.
std::optional<double> validation_perplexity(const StepRecord& record);

// Keeps every bit. What is not finite becomes the string "nan", "inf" or "-inf", as JSON has no
// numbers for it.
Json number_to_json(double value);

// One JSON object without line break, numbers as above.
std::string to_json_line(const StepRecord& record);

// Ignores unknown keys. Throws InputError "PLACE: ..." for anything that to_json_line cannot write.
StepRecord parse_step_record(std::string_view line, const std::string& place);

}  // namespace moetron
