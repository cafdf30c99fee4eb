#include "moetron/chat/encode.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "moetron/base/error.h"
#include "moetron/chat/marked_text.h"
#include "moetron/chat/python_json.h"
#include "moetron/chat/turn_spans.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

bool is_assistant(const Json& message) {
  return message.is_object() && message.value("role", "") == "assistant";
}

// Which forms of a tool call's arguments a template writes as JSON: the text that OpenAI's files
// have, or the object that most templates ask for.
struct ArgumentForms {
  bool text = false;
  bool object = false;
};

ArgumentForms argument_forms(const ChatTemplate& chat_template) {
  const auto writes = [&chat_template](const Json& arguments, std::string_view expected) {
    const Json call = {{"type", "function"},
                       {"id", "call00000"},
                       {"function", {{"name", "f"}, {"arguments", arguments}}}};
    const Json messages = {
        {{"role", "user"}, {"content", "u"}},
        {{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({call})}}};
    const Json tools =
        Json::array({{{"type", "function"},
                      {"function",
                       {{"name", "f"},
                        {"description", "d"},
                        {"parameters", {{"type", "object"}, {"properties", Json::object()}}}}}}});
    try {
      return chat_template.render(messages, tools).text.find(expected) != std::string::npos;
    } catch (const TemplateError&) {
      return false;
    }
  };
  constexpr std::string_view kText = R"({"q": "zq"})";
  return {.text = writes(Json(kText), kText), .object = writes(Json{{"q", "zq"}}, "zq")};
}

// The other form, where the template takes that alone.
void change_arguments(Json& message, const ArgumentForms& forms) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array() || forms.text == forms.object) return;
  for (Json& call : *calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    Json& function = call["function"];
    const auto arguments = function.find("arguments");
    if (arguments == function.end()) continue;
    if (forms.text && arguments->is_object()) {
      *arguments = python_json(*arguments);
    } else if (forms.object && arguments->is_string()) {
      const Json parsed = Json::parse(arguments->get<std::string>(), nullptr, false);
      if (parsed.is_object()) *arguments = parsed;
    }
  }
}

// Tokens that have a part in [begin, end).
void add_weight(const PlacedTokens& tokens, const TextRange& range, float weight,
                std::vector<float>& weights) {
  if (range.begin >= range.end) return;
  auto first = static_cast<size_t>(
      std::upper_bound(tokens.ends.begin(), tokens.ends.end(), range.begin) - tokens.ends.begin());
  for (size_t i = first; i < tokens.ends.size(); ++i) {
    if (i > 0 && tokens.ends[i - 1] >= range.end) break;
    weights[i] = std::max(weights[i], weight);
  }
}

}  // namespace

double EncodedConversation::trained_weight() const {
  return std::accumulate(weights.begin(), weights.end(), 0.0);
}

struct ChatEncoder::Parts {
  std::shared_ptr<const ChatTemplate> chat_template;
  std::shared_ptr<const Tokenizer> tokenizer;
  EncodeSettings settings;
  std::vector<std::string> special;  // texts of special tokens
  ControlTokenMarker mark_all;       // of what others say
  ControlTokenMarker mark_special;   // of what assistants say
  ArgumentForms forms;

  // What a template sees of messages.
  Json prepared(const Json& messages) const {
    Json result = Json::array();
    for (Json message : messages) {
      MT_CHECK_INPUT(message.is_object(), "a message is not an object");
      message.erase("weight");
      if (settings.thinking == ThinkingChoice::kOff)
        for (const char* name : {"reasoning_content", "thinking", "reasoning"}) message.erase(name);
      change_arguments(message, forms);
      if (!settings.allow_special_tokens_in_text)
        message = (is_assistant(message) ? mark_special : mark_all).marked(message);
      result.push_back(std::move(message));
    }
    return result;
  }
  Json prepared_tools(const Json& tools) const {
    return settings.allow_special_tokens_in_text ? tools : mark_all.marked(tools);
  }
  RenderSettings render_settings(const Json& variables) const {
    RenderSettings render{.now = settings.now};
    render.variables =
        settings.allow_special_tokens_in_text ? variables : mark_all.marked(variables);
    if (settings.thinking != ThinkingChoice::kTemplate)
      render.variables["enable_thinking"] = settings.thinking == ThinkingChoice::kOn;
    return render;
  }
};

ChatEncoder::ChatEncoder(std::shared_ptr<const ChatTemplate> chat_template,
                         std::shared_ptr<const Tokenizer> tokenizer, EncodeSettings settings) {
  auto parts = std::make_unique<Parts>();
  const std::string& literals = chat_template->literal_text();
  std::vector<std::string> control;
  for (const AddedToken& token : tokenizer->added_tokens()) {
    const bool is_blank = token.content.find_first_not_of(" \t\r\n") == std::string::npos;
    if (token.special) parts->special.push_back(token.content);
    if (token.special || (!is_blank && literals.find(token.content) != std::string::npos))
      control.push_back(token.content);
  }
  parts->mark_all = ControlTokenMarker(control);
  parts->mark_special = ControlTokenMarker(parts->special);
  parts->forms = argument_forms(*chat_template);
  parts->chat_template = std::move(chat_template);
  parts->tokenizer = std::move(tokenizer);
  parts->settings = settings;
  parts_ = std::move(parts);
}

ChatEncoder::~ChatEncoder() = default;

EncodedConversation ChatEncoder::encode(const Conversation& conversation) const {
  EncodedConversation result;
  std::vector<size_t> asked;
  for (size_t i = 0; i < conversation.messages.size(); ++i) {
    if (!is_assistant(conversation.messages[i])) continue;
    ++result.num_turns;
    if (parts_->settings.last_turn_only) asked.clear();
    asked.push_back(i);
  }
  const auto weight_of = [&conversation](size_t message) {
    return conversation.messages[message].value("weight", 1.0F);
  };
  std::erase_if(asked, [&weight_of](size_t message) { return weight_of(message) <= 0; });
  const RenderedTurns chat =
      render_turns(*parts_->chat_template, parts_->prepared(conversation.messages),
                   parts_->prepared_tools(conversation.tools),
                   parts_->render_settings(conversation.variables), asked, parts_->special);
  const UnmarkedText unmarked = without_marks(chat.text);
  PlacedTokens tokens = parts_->tokenizer->encode_pieces(unmarked.text, unmarked.pieces);
  result.weights.resize(tokens.ids.size());
  for (const TurnSpan& turn : chat.turns) {
    const TextRange range = {unmarked.place_of(turn.range.begin),
                             unmarked.place_of(turn.range.end)};
    add_weight(tokens, range, weight_of(turn.message), result.weights);
    if (range.begin < range.end) ++result.num_trained_turns;
  }
  result.num_lost_turns = std::max(0, static_cast<int>(asked.size()) - result.num_trained_turns);
  result.tokens = std::move(tokens.ids);
  return result;
}

std::vector<int32_t> ChatEncoder::encode_prompt(const Json& messages, const Json& tools,
                                                const Json& variables) const {
  RenderSettings settings = parts_->render_settings(variables);
  settings.add_generation_prompt = true;
  const std::string text =
      parts_->chat_template
          ->render(parts_->prepared(messages), parts_->prepared_tools(tools), settings)
          .text;
  const UnmarkedText unmarked = without_marks(text);
  return parts_->tokenizer->encode_pieces(unmarked.text, unmarked.pieces).ids;
}

std::vector<int32_t> ChatEncoder::stop_tokens() const {
  std::vector<int32_t> stops;
  const auto add = [&stops](int32_t id) {
    if (std::find(stops.begin(), stops.end(), id) == stops.end()) stops.push_back(id);
  };
  const std::vector<AddedToken> added = parts_->tokenizer->added_tokens();
  try {
    constexpr std::string_view kAnswer = "zqxanswerzqx";
    const Json messages = {{{"role", "user"}, {"content", "u"}},
                           {{"role", "assistant"}, {"content", kAnswer}}};
    const std::string text =
        parts_->chat_template->render(messages, nullptr, parts_->render_settings(Json::object()))
            .text;
    const size_t place = text.rfind(kAnswer);
    if (place != std::string::npos) {
      // The first control token behind the answer ends it.
      for (const int32_t id :
           parts_->tokenizer->encode(std::string_view(text).substr(place + kAnswer.size()))) {
        const bool is_special =
            std::any_of(added.begin(), added.end(),
                        [id](const AddedToken& token) { return token.id == id && token.special; });
        if (!is_special) continue;
        add(id);
        break;
      }
    }
  } catch (const TemplateError&) {  // a template that wants more than two plain turns
  }
  if (const std::optional<int32_t> end = parts_->tokenizer->eos_id()) add(*end);
  return stops;
}

std::string ChatEncoder::fingerprint_text() const {
  const EncodeSettings& settings = parts_->settings;
  return concat("1 ", settings.last_turn_only, ' ', static_cast<int>(settings.thinking), ' ',
                settings.allow_special_tokens_in_text, ' ', settings.now.value_or(0), '\n',
                parts_->chat_template->fingerprint_text());
}

}  // namespace moetron
