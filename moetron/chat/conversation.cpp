#include "moetron/chat/conversation.h"

#include <algorithm>
#include <array>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/chat/turns.h"

namespace moetron {
namespace {

// Not null and there.
const Json* find_key(const Json& object, std::string_view key) {
  const auto found = object.find(std::string(key));
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

template <size_t count>
const Json* find_one(const Json& object, const std::array<std::string_view, count>& keys) {
  for (const std::string_view key : keys)
    if (const Json* found = find_key(object, key)) return found;
  return nullptr;
}

constexpr std::array<std::string_view, 3> kTurnKeys = {"messages", "conversations", "conversation"};

// What a record's keys say that it is, and which of them hold it.
struct Layout {
  ConversationShape shape = ConversationShape::kMessages;
  const Json* turns = nullptr;   // what is said before the answers, or all
  const Json* prompt = nullptr;  // a text, or turns
  const Json* answer = nullptr;  // a text, a turn or turns
  const Json* chosen = nullptr;
  const Json* rejected = nullptr;
};

Layout layout_of(const Json& record) {
  Layout layout;
  if (record.is_array()) {
    layout.turns = &record;
    layout.shape =
        speaks_by_from(record) ? ConversationShape::kShareGpt : ConversationShape::kMessages;
    return layout;
  }
  layout.chosen = find_one(record, std::array<std::string_view, 2>{"chosen", "chosen_messages"});
  layout.rejected =
      find_one(record, std::array<std::string_view, 2>{"rejected", "rejected_messages"});
  if ((layout.chosen == nullptr) != (layout.rejected == nullptr))
    refuse(Refusal::kUnknownShape, "of chosen and rejected there is only one");
  layout.turns = find_one(record, kTurnKeys);
  if (layout.turns != nullptr) {
    layout.shape =
        speaks_by_from(*layout.turns) ? ConversationShape::kShareGpt : ConversationShape::kMessages;
    return layout;
  }
  layout.prompt = find_key(record, "instruction");
  layout.answer = find_key(record, "output");
  if (layout.prompt != nullptr && (layout.answer != nullptr || layout.chosen != nullptr)) {
    layout.shape = ConversationShape::kAlpaca;
    return layout;
  }
  layout.shape = ConversationShape::kPrompt;
  layout.prompt = find_one(record, kPromptNames);
  layout.answer = find_one(record, kAnswerNames);
  if (layout.prompt != nullptr && (layout.answer != nullptr || layout.chosen != nullptr))
    return layout;
  if (layout.chosen != nullptr && layout.chosen->is_array()) {  // whole conversations
    layout.shape = speaks_by_from(*layout.chosen) ? ConversationShape::kShareGpt
                                                  : ConversationShape::kMessages;
    return layout;
  }
  std::string keys;
  size_t num_keys = 0;
  for (const auto& [key, value] : record.items()) {
    constexpr size_t kShown = 8;
    if (++num_keys <= kShown) keys += (keys.empty() ? "" : ", ") + key;
    if (num_keys == kShown + 1) keys += ", ...";
  }
  refuse(Refusal::kUnknownShape, "the keys are " + (keys.empty() ? "none" : keys));
}

void add_text(Json& messages, const char* role, const std::string& text) {
  messages.push_back({{"role", role}, {"content", text}});
}

std::string text_of(const Json& value, const std::string& what) {
  if (!value.is_string()) refuse(Refusal::kWrongType, what + " is not a text");
  return value.get<std::string>();
}

// An answer: a text, a turn, or turns.
void add_answer(const Json& answer, Json& messages, Json& tools) {
  if (answer.is_string()) {
    if (answer.get_ref<const std::string&>().empty())
      refuse(Refusal::kEmptyAnswer, "message " + std::to_string(messages.size() + 1));
    add_text(messages, "assistant", answer.get<std::string>());
  } else {
    read_turns(answer.is_array() ? answer : Json::array({answer}), messages, tools);
  }
}

// [[user, assistant], ...]
void add_history(const Json& history, Json& messages) {
  if (!history.is_array()) refuse(Refusal::kWrongType, "the history is not a list");
  for (const Json& pair : history) {
    if (!pair.is_array() || pair.size() != 2)
      refuse(Refusal::kWrongType, "an entry of the history is not a pair");
    add_text(messages, "user", text_of(pair[0], "an entry of the history"));
    Json no_tools;
    add_answer(Json(text_of(pair[1], "an entry of the history")), messages, no_tools);
  }
}

// All that stands before an answer.
void add_context(const Json& record, const Layout& layout, Conversation& conversation) {
  Json& messages = conversation.messages;
  if (record.is_object()) {
    const Json* system =
        find_one(record, std::array<std::string_view, 2>{"system", "system_prompt"});
    if (system != nullptr && !text_of(*system, "the system prompt").empty())
      add_text(messages, "system", system->get<std::string>());
    const Json* tools = find_one(record, std::array<std::string_view, 2>{"tools", "functions"});
    if (tools != nullptr) conversation.tools = read_tools(*tools);
    if (const Json* variables = find_key(record, "chat_template_kwargs")) {
      if (!variables->is_object())
        refuse(Refusal::kWrongType, "chat_template_kwargs are not an object");
      conversation.variables = *variables;
    }
    for (const char* media : {"images", "image", "videos", "audios"}) {
      const Json* value = find_key(record, media);
      if (value != nullptr && !value->empty())
        refuse(Refusal::kNotText, std::string("the record has ") + media);
    }
    if (const Json* history = find_key(record, "history")) add_history(*history, messages);
  }
  if (layout.turns != nullptr) {
    const size_t own = messages.size();
    read_turns(*layout.turns, messages, conversation.tools);
    // A system turn counts for more than the record's.
    if (own == 1 && messages.size() > 1 && messages[1]["role"] == "system") messages.erase(0);
  } else if (layout.prompt != nullptr && layout.prompt->is_array()) {
    read_turns(*layout.prompt, messages, conversation.tools);
  } else if (layout.prompt != nullptr) {
    std::string text = text_of(*layout.prompt, "the prompt");
    const Json* input =
        layout.shape == ConversationShape::kAlpaca ? find_key(record, "input") : nullptr;
    if (input != nullptr && !text_of(*input, "the input").empty())
      text += (text.empty() ? "" : "\n") + input->get<std::string>();
    add_text(messages, "user", text);
  }
}

void check_conversation(const Json& messages, ConversationUse use) {
  const auto has = [&messages](auto holds) {
    return std::any_of(messages.begin(), messages.end(), holds);
  };
  if (!has([](const Json& message) { return message["role"] == "user"; }))
    refuse(Refusal::kNoUserTurn, std::to_string(messages.size()) + " messages");
  if (use == ConversationUse::kAsking) return;
  const bool trains = has([](const Json& message) {
    return message["role"] == "assistant" && message.value("weight", 1.0) > 0;
  });
  if (!trains) refuse(Refusal::kNothingToTrain, "no assistant turn of a weight above 0");
}

size_t count_shared(const Json& one, const Json& other) {
  size_t count = 0;
  while (count < std::min(one.size(), other.size()) && one[count] == other[count]) ++count;
  return count;
}

ConversationRecord read_record(const Json& record, std::optional<ConversationShape> shape,
                               ConversationUse use) {
  if (!record.is_object() && !record.is_array()) refuse(Refusal::kUnknownShape, "it is no object");
  const Layout layout = layout_of(record);
  if (shape && *shape != layout.shape)
    refuse(Refusal::kUnknownShape, "it has the shape " + std::string(shape_name(layout.shape)) +
                                       ", not " + std::string(shape_name(*shape)));
  ConversationRecord result;
  result.shape = layout.shape;
  add_context(record, layout, result.conversation);
  const Json* chosen = layout.chosen;
  const Json* rejected = layout.rejected;
  if (chosen == nullptr && layout.answer != nullptr && layout.answer->is_array() &&
      layout.answer->size() == 2 && (*layout.answer)[0].is_string() &&
      (*layout.answer)[1].is_string()) {
    chosen = &(*layout.answer)[0];
    rejected = &(*layout.answer)[1];
  }
  if (chosen != nullptr) {
    result.rejected = result.conversation;
    add_answer(*chosen, result.conversation.messages, result.conversation.tools);
    add_answer(*rejected, result.rejected->messages, result.rejected->tools);
    check_conversation(result.rejected->messages, use);
    result.num_shared = count_shared(result.conversation.messages, result.rejected->messages);
    const bool differ = result.num_shared < result.conversation.messages.size() &&
                        result.num_shared < result.rejected->messages.size();
    if (!differ) refuse(Refusal::kNothingToTrain, "chosen and rejected do not differ");
    for (const Json* side : {&result.conversation.messages, &result.rejected->messages}) {
      if ((*side)[result.num_shared].at("role") != "assistant")
        refuse(Refusal::kNoPair, concat("chosen and rejected do not answer the same: message ",
                                        result.num_shared + 1, " differs"));
    }
  } else if (layout.answer != nullptr) {
    add_answer(*layout.answer, result.conversation.messages, result.conversation.tools);
  }
  check_conversation(result.conversation.messages, use);
  return result;
}

}  // namespace

std::string_view shape_name(ConversationShape shape) {
  switch (shape) {
    case ConversationShape::kMessages:
      return "messages";
    case ConversationShape::kShareGpt:
      return "sharegpt";
    case ConversationShape::kAlpaca:
      return "alpaca";
    case ConversationShape::kPrompt:
      return "prompt";
  }
  throw InternalError("unknown shape of conversations");
}

std::string_view refusal_name(Refusal refusal) {
  switch (refusal) {
    case Refusal::kBadJson:
      return "bad JSON";
    case Refusal::kUnknownShape:
      return "unknown shape";
    case Refusal::kWrongType:
      return "wrong type";
    case Refusal::kUnknownRole:
      return "unknown role";
    case Refusal::kNotText:
      return "not text";
    case Refusal::kNoUserTurn:
      return "no user turn";
    case Refusal::kEmptyAnswer:
      return "empty answer";
    case Refusal::kNothingToTrain:
      return "nothing to train on";
    case Refusal::kNoPair:
      return "no pair";
  }
  throw InternalError("unknown refusal");
}

ConversationResult conversation_from_json(const Json& record, const std::string& place,
                                          std::optional<ConversationShape> shape,
                                          ConversationUse use) {
  ConversationResult result;
  try {
    result.record = read_record(record, shape, use);
    result.record->conversation.place = place;
    if (result.record->rejected) result.record->rejected->place = place;
  } catch (const RefusedTurn& refused) {
    result.refused = RefusedRecord{refused.refusal, place, refused.detail};
  }
  return result;
}

ConversationResult read_conversation(std::string_view json, const std::string& place,
                                     std::optional<ConversationShape> shape, ConversationUse use) {
  Json record;
  try {
    record = parse_json(json, "the record");
  } catch (const InputError& error) {
    ConversationResult result;
    result.refused = RefusedRecord{Refusal::kBadJson, place, error.what()};
    return result;
  }
  return conversation_from_json(record, place, shape, use);
}

Json prompt_of(const Conversation& conversation) {
  const Json& messages = conversation.messages;
  for (size_t i = messages.size(); i > 0; --i) {
    if (messages[i - 1]["role"] != "assistant") continue;
    return Json(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(i - 1));
  }
  return messages;
}

}  // namespace moetron
