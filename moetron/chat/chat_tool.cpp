// The test program of tests/oracles/chat_template_oracle.py: reads one JSON request a line, answers
// one a line.
//   {"template": TEXT} or {"folder": PATH}   what follows is rendered with it; {"ok": true} or
//   {"error"}
//   {"messages", "tools", "settings": {"add_generation_prompt", "variables"}}
//       {"text", "generations": [[begin, end], ...]} in bytes, or {"error": reason, "line"}
#include <iostream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/chat/chat_template.h"

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
    if (request.contains("template")) {
      SpecialTokens tokens;
      const Json named = request.value("tokens", Json::object());
      for (const auto& [name, token] : named.items())
        tokens[name] = token.get<std::string>();
      template_ =
          ChatTemplate::from_text(request["template"].get<std::string>(), "template", tokens);
      return {{"ok", true}};
    }
    if (request.contains("folder")) {
      template_ = ChatTemplate::load(request["folder"].get<std::string>());
      return {{"ok", true}};
    }
    const Json asked = request.value("settings", Json::object());
    RenderSettings settings;
    settings.add_generation_prompt = asked.value("add_generation_prompt", false);
    settings.variables = asked.value("variables", Json::object());
    const RenderedChat chat =
        template_->render(request["messages"], request.value("tools", Json()), settings);
    Json generations = Json::array();
    for (const TextRange& range : chat.generations) generations.push_back({range.begin, range.end});
    return {{"text", chat.text}, {"generations", generations}};
  }

  std::shared_ptr<const ChatTemplate> template_;
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
