#include "moetron/chat/turns.h"

#include <array>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 17> kRoles{{
    {"system", "system"},
    {"developer", "system"},
    {"user", "user"},
    {"human", "user"},
    {"assistant", "assistant"},
    {"gpt", "assistant"},
    {"chatgpt", "assistant"},
    {"bing", "assistant"},
    {"bard", "assistant"},
    {"model", "assistant"},
    {"bot", "assistant"},
    {"function_call", "assistant"},
    {"tool", "tool"},
    {"observation", "tool"},
    {"function", "tool"},
    {"ipython", "tool"},
    {"function_response", "tool"},
}};

std::string shown(const std::string& text) {
  constexpr size_t kMost = 40;
  return "\"" + (text.size() > kMost ? text.substr(0, kMost) + "..." : text) + "\"";
}

const Json* find_value(const Json& object, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto found = object.find(name);
    if (found != object.end() && !found->is_null()) return &*found;
  }
  return nullptr;
}

std::string read_role(const Json& turn, const std::string& place, bool& is_call_out) {
  const Json* value = find_value(turn, {"role", "from"});
  if (value == nullptr) refuse(Refusal::kUnknownRole, place + " has no role");
  if (!value->is_string()) refuse(Refusal::kWrongType, "the role of " + place + " is not a text");
  const auto name = value->get<std::string>();
  is_call_out = name == "function_call";
  for (const auto& [from, role] : kRoles)
    if (from == name) return std::string(role);
  refuse(Refusal::kUnknownRole, "role " + shown(name) + " of " + place);
}

Json parse_text(const std::string& text, const std::string& what) {
  try {
    return parse_json(text, what);
  } catch (const InputError& error) {
    refuse(Refusal::kWrongType, error.what());
  }
}

// {"name", "arguments"}, alone or under "function".
Json read_call(const Json& value, const std::string& place) {
  if (!value.is_object())
    refuse(Refusal::kWrongType, "a tool call of " + place + " is not an object");
  const Json* function = find_value(value, {"function"});
  const Json& call = function != nullptr ? *function : value;
  if (!call.is_object() || !call.contains("name") || !call["name"].is_string())
    refuse(Refusal::kWrongType, "a tool call of " + place + " has no name");
  const Json* arguments = find_value(call, {"arguments", "parameters"});
  Json given = arguments != nullptr ? *arguments : Json::object();
  if (!given.is_string() && !given.is_object())
    refuse(Refusal::kWrongType,
           "the arguments of a tool call of " + place + " are neither a text nor an object");
  Json result = {{"type", "function"}};
  if (const Json* id = find_value(value, {"id"})) result["id"] = *id;
  result["function"] = {{"name", call["name"]}, {"arguments", std::move(given)}};
  return result;
}

void add_calls(const Json& value, const std::string& place, Json& calls) {
  if (value.is_string()) {
    add_calls(parse_text(value.get<std::string>(), "a tool call of " + place), place, calls);
  } else if (value.is_array()) {
    for (const Json& call : value) calls.push_back(read_call(call, place));
  } else {
    calls.push_back(read_call(value, place));
  }
}

struct Content {
  std::optional<std::string> text;
  std::string reasoning;
  Json calls = Json::array();
};

void add_part(const Json& part, const std::string& place, Content& content, Json& tools) {
  if (part.is_string()) {
    content.text = content.text.value_or("") + part.get<std::string>();
    return;
  }
  if (!part.is_object() || !part.contains("type") || !part["type"].is_string())
    refuse(Refusal::kWrongType, "a part of " + place + " is neither a text nor has it a type");
  const auto type = part["type"].get<std::string>();
  const Json* value = find_value(part, {"text", "value", "content", "thinking", "reasoning"});
  const bool is_text = type == "text" || type == "input_text" || type == "output_text";
  const bool is_reasoning = type == "reasoning" || type == "thinking";
  if (type == "tool_call" && value != nullptr) {
    add_calls(*value, place, content.calls);
  } else if (type == "tools" && value != nullptr) {
    for (const Json& tool : read_tools(*value)) tools.push_back(tool);
  } else if (!is_text && !is_reasoning) {
    refuse(Refusal::kNotText, "a part of " + place + " is of type " + shown(type));
  } else if (value == nullptr || !value->is_string()) {
    refuse(Refusal::kWrongType, "a part of " + place + " has no text");
  } else if (is_reasoning) {
    content.reasoning += value->get<std::string>();
  } else {
    content.text = content.text.value_or("") + value->get<std::string>();
  }
}

Content read_content(const Json& turn, const std::string& place, Json& tools) {
  Content content;
  const Json* value = find_value(turn, {"content", "value"});
  if (value == nullptr) return content;
  if (value->is_string()) {
    content.text = value->get<std::string>();
  } else if (value->is_array()) {
    for (const Json& part : *value) add_part(part, place, content, tools);
  } else {
    refuse(Refusal::kWrongType,
           "the content of " + place + " is neither a text nor a list of parts");
  }
  return content;
}

// The weight of a turn, of assistants alone.
std::optional<double> read_weight(const Json& turn, const std::string& role,
                                  const std::string& place) {
  const Json* value = find_value(turn, {"weight", "loss_weight"});
  if (value == nullptr) return std::nullopt;
  const double weight = value->is_boolean()  ? static_cast<double>(value->get<bool>())
                        : value->is_number() ? value->get<double>()
                                             : -1;
  if (!(weight >= 0) || !std::isfinite(weight))
    refuse(Refusal::kWrongType, "the weight of " + place + " is not a number from 0 on");
  if (role == "assistant") return weight;
  if (weight > 0)
    refuse(Refusal::kWrongType,
           "the weight of " + place + ", of a " + role + ", is not 0: only assistants are trained");
  return std::nullopt;
}

}  // namespace

void refuse(Refusal refusal, const std::string& detail) {
  throw RefusedTurn{refusal, detail};
}

Json read_tools(const Json& value) {
  if (value.is_null()) return {};
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) return {};
    return read_tools(parse_text(text, "the text of tools"));
  }
  if (!value.is_array()) refuse(Refusal::kWrongType, "tools are not a list");
  Json tools = Json::array();
  for (const Json& tool : value) {
    if (!tool.is_object()) refuse(Refusal::kWrongType, "a tool is not an object");
    const bool is_bare = tool.contains("name") && !tool.contains("function");
    tools.push_back(is_bare ? Json{{"type", "function"}, {"function", tool}} : tool);
  }
  return tools.empty() ? Json() : tools;
}

Json read_turn(const Json& turn, const std::string& place, Json& tools) {
  if (!turn.is_object()) refuse(Refusal::kWrongType, place + " is not an object");
  bool is_call = false;
  const std::string role = read_role(turn, place, is_call);
  Json more_tools = Json::array();
  Content content = read_content(turn, place, more_tools);
  for (Json& tool : more_tools) {
    if (tools.is_null()) tools = Json::array();
    tools.push_back(std::move(tool));
  }
  if (is_call) {
    add_calls(Json(content.text.value_or("")), place, content.calls);
    content.text.reset();
  }
  if (const Json* calls = find_value(turn, {"tool_calls"})) {
    if (!calls->is_array())
      refuse(Refusal::kWrongType, "the tool_calls of " + place + " are not a list");
    add_calls(*calls, place, content.calls);
  }
  if (const Json* call = find_value(turn, {"function_call"}))
    add_calls(*call, place, content.calls);
  if (const Json* reasoning = find_value(turn, {"reasoning_content", "reasoning", "thinking"})) {
    if (!reasoning->is_string())
      refuse(Refusal::kWrongType, "the reasoning of " + place + " is not a text");
    content.reasoning += reasoning->get<std::string>();
  }
  const bool is_assistant = role == "assistant";
  if (!is_assistant && !content.calls.empty())
    refuse(Refusal::kWrongType, place + ", of a " + role + ", calls tools");
  if (is_assistant && content.calls.empty() && content.text.value_or("").empty())
    refuse(Refusal::kEmptyAnswer, place);
  if (!content.text && !is_assistant) refuse(Refusal::kWrongType, place + " has no content");

  Json message = {{"role", role}};
  message["content"] = content.text.value_or("");
  if (!content.reasoning.empty()) message["reasoning_content"] = content.reasoning;
  if (!content.calls.empty()) message["tool_calls"] = std::move(content.calls);
  for (const char* name : {"tool_call_id", "name"})
    if (const Json* value = find_value(turn, {name}); value != nullptr && value->is_string())
      message[name] = *value;
  if (const std::optional<double> weight = read_weight(turn, role, place))
    message["weight"] = *weight;
  return message;
}

void read_turns(const Json& turns, Json& messages, Json& tools) {
  if (!turns.is_array()) refuse(Refusal::kWrongType, "the messages are not a list");
  for (const Json& turn : turns)
    messages.push_back(read_turn(turn, "message " + std::to_string(messages.size() + 1), tools));
}

bool speaks_by_from(const Json& turns) {
  return turns.is_array() && !turns.empty() && turns[0].is_object() && turns[0].contains("from");
}

}  // namespace moetron
