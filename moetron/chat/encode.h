// Conversations as tokens, and which of them are trained.
//
// Trained are assistant turns: what the model would have to write behind the generation prompt, its
// token that ends the turn included, and not the white space that a template puts behind that.
// Where the template marks {% generation %} blocks, they say what is trained, as transformers'
// assistant mask does: every token that has a part in a block. Elsewhere each assistant turn i is
// found by rendering prefixes:
//
//   full    all messages
//   before  messages[:i] with the generation prompt: where the turn begins
//   until   messages[:i + 1]: what the turn was when it was the last
//
// Where `before` is a beginning of `full`, the turn is what of `until` behind it `full` still has:
// all of it, or, where a template rewrites earlier turns (Qwen3 drops their thinking), the longest
// end of it. Where the generation prompt writes what the turn does not (<think>), the turn begins
// where the two part. Where prefixes do not lead to a turn (what stands before it is rewritten,
// too, or the template refuses a prefix), it is what changes in `full` when the turn says something
// else, and the special token behind that. A turn that is not found is not trained, and counted.
//
// What looks like a control token in a message's text (special tokens, and added tokens that the
// template itself writes) is encoded as plain text, as with transformers' sanitize_control_tokens;
// in assistant turns this holds for special tokens only: <think> and <tool_call> there are the
// model's own. Tokens are those of the whole text encoded at once, but for such places, around
// which the text is cut.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "moetron/chat/chat_template.h"
#include "moetron/chat/conversation.h"
#include "moetron/config/choices.h"

namespace moetron {

class Tokenizer;

struct EncodeSettings {
  bool last_turn_only = false;  // of the assistant turns only the last is trained
  // kTemplate leaves it to the template. kOn and kOff set its variable enable_thinking; kOff drops
  // reasoning_content of messages, too, so that answers are trained without it.
  ThinkingChoice thinking = ThinkingChoice::kTemplate;
  bool allow_special_tokens_in_text = false;
  std::optional<std::time_t> now;  // of strftime_now(); to make results repeat
};

struct EncodedConversation {
  std::vector<int32_t> tokens;
  // weights[i] is the weight of token i as a target, of the message that it belongs to (1 without a
  // weight); 0 for context. As many as tokens.
  std::vector<float> weights;
  int num_turns = 0;          // assistant turns
  int num_trained_turns = 0;  // of which some token is trained
  int num_lost_turns = 0;     // that should be trained and were not found

  double trained_weight() const;  // the sum of weights
};

// Immutable; every method may be called from many threads at once.
class ChatEncoder {
 public:
  ChatEncoder(std::shared_ptr<const ChatTemplate> chat_template,
              std::shared_ptr<const Tokenizer> tokenizer, EncodeSettings settings = {});
  ~ChatEncoder();

  // Throws TemplateError where the template refuses the conversation, and InputError where weights
  // of messages cannot be told apart in its {% generation %} blocks. The place is the caller's to
  // add.
  EncodedConversation encode(const Conversation& conversation) const;

  // The tokens to continue for an answer: the messages and the generation prompt.
  std::vector<int32_t> encode_prompt(const Json& messages, const Json& tools = nullptr,
                                     const Json& variables = Json::object()) const;

  // Tokens that end an answer: the last special token that the template writes behind an assistant
  // turn, and the tokenizer's eos.
  std::vector<int32_t> stop_tokens() const;

  // What results depend on besides the conversation, but for the tokenizer: for the key of a cache.
  std::string fingerprint_text() const;

 private:
  struct Parts;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace moetron
