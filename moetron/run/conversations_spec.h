// The conversations of a run that fine-tunes, as its options resolve to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "moetron/config/choices.h"

namespace moetron {

struct Options;

struct ConversationsSpec {
  bool pairs = false;  // of a better and a worse answer, a sequence each; else conversations
  bool packing = true;
  int64_t window = 1;        // conversations that are packed together
  bool truncate = false;     // those longer than a sequence, else they are left out
  double eval_fraction = 0;  // held out
  bool strict = false;
  std::string chat_template;  // file, or "chatml"; empty: the model's own
  bool last_turn_only = false;
  ThinkingChoice thinking = ThinkingChoice::kTemplate;
  bool allow_special_tokens_in_text = false;
};

// Nothing for a run on token files.
std::optional<ConversationsSpec> resolve_conversations(const Options& options);

}  // namespace moetron
