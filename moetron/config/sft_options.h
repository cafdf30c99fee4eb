// The options of fine-tuning on conversations.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moetron/config/choices.h"

namespace moetron {

// What fine-tuning chooses of a run's other options is in run/sft_choices.h.
struct SftOptions {
  bool applies = false;            // the command is sft
  std::vector<std::string> given;  // names of the options that the user gave: the rest is chosen
  Objective objective = Objective::kSft;
  double dpo_beta = 0.1;
  double dpo_label_smoothing = 0;
  int64_t epochs = 3;
  bool packing = true;
  int64_t packing_window = 1024;        // conversations
  int64_t max_padding_length = 0;       // tokens; 0: seq_length
  bool truncate = false;                // conversations longer than a sequence, else left out
  std::optional<double> eval_fraction;  // of the conversations
  bool strict = false;
  int64_t sample_answers = 3;
  int64_t sample_interval = 0;  // steps; 0: at the end alone
  std::string chat_template;    // file, or "chatml"; empty: the model's own
  bool last_turn_only = false;
  ThinkingChoice thinking = ThinkingChoice::kTemplate;
  bool allow_special_tokens_in_text = false;
};

}  // namespace moetron
