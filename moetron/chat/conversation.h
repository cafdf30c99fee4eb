// Conversations as people keep them, in one form: OpenAI's messages. Four shapes are told apart by
// their keys:
//
//   messages  "messages" (or "conversations") of turns with "role" and "content", and "tools"; or a
//             bare array of such turns
//   sharegpt  "conversations" of turns with "from" and "value"; "system", "tools"
//   alpaca    "instruction" and "output"; "input", "system", "history": [[user, assistant], ...]
//   prompt    "prompt" and "completion", or other pairs of names (kPromptNames, kAnswerNames), each
//             a text or an array of messages; "system"
//
// In place of the answer there may be a pair, for preference tuning: "chosen" and "rejected", each
// a text, a turn, or an array of turns that answers what stands before ("messages",
// "conversations", "prompt" or "instruction"); or arrays of whole conversations that begin alike;
// or "output": [better, worse].
//
// Messages come out with role (system, user, assistant, tool), content (a text, empty only
// beside tool_calls), and where there are: reasoning_content, tool_calls ([{"type":
// "function", "id"?, "function": {"name", "arguments"}}], arguments as the file has them),
// tool_call_id, name, and weight (a number >= 0). A content of text parts becomes one text; a part
// of kind "reasoning" becomes reasoning_content, "tool_call" a call, and "tools" the record's
// tools. ShareGPT's human, gpt, bing, chatgpt, function_call, observation and tool are the roles
// that they mean; "model" and "bot" are the assistant; of older data, function_call and the role
// function become tool_calls and tool. loss_weight is read as weight. Other keys of messages
// (refusal, audio: null, annotations, ...) are dropped, as is parallel_tool_calls of a record.
//
// A record is refused (with a reason that is counted, never a throw) that is no JSON object or
// array, has no known shape, a value of the wrong type, an unknown role, a part that is not text
// (an image), no user turn, an assistant turn with neither text nor tool calls, or nothing to train
// on: no assistant turn whose weight is not 0. A user's text may be empty.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/json.h"

namespace moetron {

// Pairs of these names, one of each, are a prompt and its answer.
constexpr std::array<std::string_view, 4> kPromptNames = {"prompt", "query", "question", "input"};
constexpr std::array<std::string_view, 5> kAnswerNames = {"completion", "response", "answer",
                                                          "output", "target"};

enum class ConversationShape { kMessages, kShareGpt, kAlpaca, kPrompt };
std::string_view shape_name(ConversationShape shape);  // "messages", "sharegpt", "alpaca", "prompt"

struct Conversation {
  Json messages = Json::array();
  Json tools;                       // an array of schemas, or null
  Json variables = Json::object();  // chat_template_kwargs of the record
  std::string place;                // "FILE line 12", or "FILE record 12" of an array
};

struct ConversationRecord {
  ConversationShape shape = ConversationShape::kMessages;
  Conversation conversation;             // of a pair the chosen one
  std::optional<Conversation> rejected;  // its messages begin as the chosen one's
  size_t num_shared = 0;                 // messages that both of a pair begin with
};

enum class Refusal {
  kBadJson,
  kUnknownShape,
  kWrongType,
  kUnknownRole,
  kNotText,
  kNoUserTurn,
  kEmptyAnswer,
  kNothingToTrain,
  kNoPair,
};
constexpr int kNumRefusals = 9;
std::string_view refusal_name(Refusal refusal);  // "unknown role"

struct RefusedRecord {
  Refusal refusal = Refusal::kBadJson;
  std::string place;
  std::string detail;  // one clause: what was found, and where in the record
};

// One to train on has an answer of a weight above 0; one to ask may end with the question.
enum class ConversationUse { kTraining, kAsking };

// What one record is; exactly one is set. `shape`: what it must be, or what its keys tell.
struct ConversationResult {
  std::optional<ConversationRecord> record;
  std::optional<RefusedRecord> refused;
};
ConversationResult read_conversation(std::string_view json, const std::string& place,
                                     std::optional<ConversationShape> shape = std::nullopt,
                                     ConversationUse use = ConversationUse::kTraining);
ConversationResult conversation_from_json(const Json& record, const std::string& place,
                                          std::optional<ConversationShape> shape = std::nullopt,
                                          ConversationUse use = ConversationUse::kTraining);

// The messages before the last assistant turn: what sample answers and evaluation ask with.
Json prompt_of(const Conversation& conversation);

}  // namespace moetron
