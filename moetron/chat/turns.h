// Turns of conversations in all their spellings, as OpenAI's messages: conversation.h says what
// comes out.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "moetron/chat/conversation.h"

namespace moetron {

// Why a record is refused, on the way to whoever knows its place.
struct RefusedTurn {
  Refusal refusal;
  std::string detail;
};

[[noreturn]] void refuse(Refusal refusal, const std::string& detail);

// One turn. `place` is what details call it: "message 2". Tools that its content names are added to
// `tools`.
Json read_turn(const Json& turn, const std::string& place, Json& tools);

// An array of turns appended to `messages`.
void read_turns(const Json& turns, Json& messages, Json& tools);

// Schemas of tools: a list, a JSON text of one, or null and "" for none. Bare functions get the
// form of
// {"type": "function", "function": ...}.
Json read_tools(const Json& value);

// Whether there is an array whose first turn says who speaks by "from".
bool speaks_by_from(const Json& turns);

}  // namespace moetron
