// The test program of tests/oracles/chat_template_oracle.py and chat_encode_oracle.py: reads one
// JSON request a line, answers one a line, or {"error": reason, "line": of the template}.
//   {"template": TEXT, "tokens"} or {"folder": PATH}   what follows is rendered with it
//   {"tokenizer": PATH}                                what follows is encoded with it
//   {"messages", "tools", "settings": {"add_generation_prompt", "variables"}}
//       {"text", "generations": [[begin, end], ...]} in bytes
//   {"encode": {"messages", "tools", "variables"}, "settings": {"last_turn_only", "thinking",
//   "allow"}}
//       {"tokens", "weights", "lost", "prompt", "stops"}
//   {"record": TEXT}                                   {"shape", "messages", "tools", ...} or
//   {"refused"}
#include <iostream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/chat/chat_template.h"
#include "moetron/chat/conversation.h"
#include "moetron/chat/encode.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

class Tool {
 public:
  Json answer(const Json& request) {
    try {
      return answer_request(request);
    } catch (const TemplateError& error) {
      return {{"error", error.reason()}, {"line", error.line()}};
    } catch (const Error& error) {
      return {{"error", error.what()}, {"line", 0}};
    }
  }

 private:
  Json answer_request(const Json& request) {
    if (!request.contains("encode")) encoder_.reset();
    if (request.contains("template")) {
      SpecialTokens tokens;
      const Json named = request.value("tokens", Json::object());
      for (const auto& [name, token] : named.items()) tokens[name] = token.get<std::string>();
      template_ =
          ChatTemplate::from_text(request["template"].get<std::string>(), "template", tokens);
      return {{"ok", true}};
    }
    if (request.contains("folder")) {
      template_ = ChatTemplate::load(request["folder"].get<std::string>());
      return {{"ok", true}};
    }
    if (request.contains("tokenizer")) {
      tokenizer_ = Tokenizer::load(request["tokenizer"].get<std::string>());
      return {{"ok", true}};
    }
    if (request.contains("record")) return read(request["record"].get<std::string>());
    const Json asked = request.value("settings", Json::object());
    if (request.contains("encode")) return encode(request["encode"], asked);
    RenderSettings settings;
    settings.add_generation_prompt = asked.value("add_generation_prompt", false);
    settings.variables = asked.value("variables", Json::object());
    const RenderedChat chat =
        template_->render(request["messages"], request.value("tools", Json()), settings);
    Json generations = Json::array();
    for (const TextRange& range : chat.generations) generations.push_back({range.begin, range.end});
    return {{"text", chat.text}, {"generations", generations}};
  }

  // Made once for many conversations.
  const ChatEncoder& encoder(const Json& settings) {
    const std::string key = settings.dump();
    if (encoder_ != nullptr && key == encoder_key_) return *encoder_;
    EncodeSettings how;
    how.last_turn_only = settings.value("last_turn_only", false);
    how.allow_special_tokens_in_text = settings.value("allow", false);
    if (settings.contains("thinking"))
      how.thinking = settings["thinking"].get<bool>() ? ThinkingChoice::kOn : ThinkingChoice::kOff;
    encoder_ = std::make_unique<ChatEncoder>(template_, tokenizer_, how);
    encoder_key_ = key;
    return *encoder_;
  }

  Json encode(const Json& asked, const Json& settings) {
    const ChatEncoder& encoder = this->encoder(settings);
    Conversation conversation;
    conversation.messages = asked["messages"];
    conversation.tools = asked.value("tools", Json());
    conversation.variables = asked.value("variables", Json::object());
    const EncodedConversation encoded = encoder.encode(conversation);
    return {{"tokens", encoded.tokens},
            {"weights", encoded.weights},
            {"lost", encoded.num_lost_turns},
            {"prompt", encoder.encode_prompt(prompt_of(conversation), conversation.tools,
                                             conversation.variables)},
            {"stops", encoder.stop_tokens()}};
  }

  static Json read(const std::string& text) {
    const ConversationResult result = read_conversation(text, "record");
    if (result.refused)
      return {{"refused", refusal_name(result.refused->refusal)},
              {"detail", result.refused->detail}};
    const ConversationRecord& record = *result.record;
    return {{"shape", shape_name(record.shape)},
            {"messages", record.conversation.messages},
            {"tools", record.conversation.tools},
            {"rejected", record.rejected ? record.rejected->messages : Json()},
            {"shared", record.num_shared}};
  }

  std::shared_ptr<const ChatTemplate> template_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const ChatEncoder> encoder_;
  std::string encoder_key_;
};

int run() {
  Tool tool;
  std::string line;
  while (std::getline(std::cin, line)) {
    const Json request = Json::parse(line);
    std::cout << tool.answer(request).dump(-1, ' ', true) << '\n' << std::flush;
  }
  return kExitDone;
}

}  // namespace
}  // namespace moetron

int main() {
  return moetron::run();
}
