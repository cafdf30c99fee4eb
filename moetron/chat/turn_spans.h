// Where in a rendered chat the turns of the assistant stand: encode.h says how they are found.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/json.h"
#include "moetron/chat/chat_template.h"

namespace moetron {

struct TurnSpan {
  size_t message = 0;  // its place in the messages
  TextRange range;     // of the rendered text; empty where the turn was not found
};

struct RenderedTurns {
  std::string text;
  std::vector<TurnSpan> turns;  // one for each assistant turn that was asked for, in order
};

// Renders `messages` and finds the turns of `asked` (places of assistant messages, in order).
// `end_tokens`: texts of the tokens that may end a turn; white space behind one is not the turn's.
// Throws TemplateError where the whole does not render, InputError where generation blocks are not
// as many as assistant turns and not all of these are asked for.
RenderedTurns render_turns(const ChatTemplate& chat_template, const Json& messages,
                           const Json& tools, const RenderSettings& settings,
                           const std::vector<size_t>& asked,
                           const std::vector<std::string>& end_tokens);

}  // namespace moetron
