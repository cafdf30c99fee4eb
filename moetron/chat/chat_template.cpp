#include "moetron/chat/chat_template.h"

#include <algorithm>
#include <utility>

#include "moetron/base/file.h"
#include "moetron/base/path.h"
#include "moetron/chat/jinja/interpreter.h"
#include "moetron/chat/jinja/parser.h"
#include "moetron/tokenizer/tokenizer_config.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

constexpr std::string_view kChatMl =
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' %}"
    "{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}"
    "{%- else %}{{- message.content + '<|im_end|>' }}{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

struct NamedTemplate {
  std::string name;  // for errors
  std::string text;
  jinja::Template tree;
};

NamedTemplate parse_template(std::string name, std::string text) {
  MT_CHECK_INPUT(text.size() <= kMaxTemplateBytes, name, " is larger than ", kMaxTemplateBytes,
                 " bytes: no template is");
  MT_CHECK_INPUT(is_utf8(text), name, " is not UTF-8");
  NamedTemplate result{std::move(name), std::move(text), {}};
  try {
    result.tree = jinja::parse(result.text);
  } catch (const jinja::SyntaxFailure& failure) {
    throw TemplateError(result.name, failure.line, failure.reason);
  }
  return result;
}

// Templates by their names, "default" and "tool_use" among them.
using Texts = std::map<std::string, std::pair<std::string, std::string>>;  // name -> shown, text

// chat_template.jinja and chat_templates/*.jinja.
Texts read_template_files(const fs::path& folder) {
  Texts texts;
  const fs::path main = folder / "chat_template.jinja";
  if (path_exists(main)) texts["default"] = {main.string(), read_file(main)};
  for (const char* name : {"default", "tool_use"}) {
    const fs::path path = folder / "chat_templates" / (std::string(name) + ".jinja");
    if (path_exists(path) && !texts.contains(name)) texts[name] = {path.string(), read_file(path)};
  }
  return texts;
}

Texts read_config_templates(const fs::path& folder) {
  const fs::path path = folder / "tokenizer_config.json";
  if (!path_exists(path)) return {};
  const Json config = read_json(path);
  MT_CHECK_INPUT(config.is_object(), path.string(), " is not an object");
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return {};
  const std::string place = path.string() + ": chat_template";
  if (found->is_string()) return {{"default", {place, found->get<std::string>()}}};
  MT_CHECK_INPUT(found->is_array(), place, " is neither a text nor a list of templates");
  Texts texts;
  for (const Json& entry : *found) {
    const bool is_template = entry.is_object() && entry.contains("name") &&
                             entry["name"].is_string() && entry.contains("template") &&
                             entry["template"].is_string();
    MT_CHECK_INPUT(is_template, place, ": an entry has no name and template");
    const auto name = entry["name"].get<std::string>();
    texts[name] = {place + " " + name, entry["template"].get<std::string>()};
  }
  return texts;
}

uint64_t bytes_of(const Json& json) {
  if (json.is_string()) return json.get_ref<const std::string&>().size() + 16;
  uint64_t bytes = 16;
  if (json.is_structured())
    for (const auto& [key, value] : json.items()) bytes += key.size() + bytes_of(value);
  return bytes;
}

// What transformers makes of a message before a template sees it.
Json plain_message(const Json& message) {
  Json result = Json::object();
  for (const auto& [key, value] : message.items())
    if (!value.is_null()) result[key] = value;
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const auto reasoning = result.find(name);
    if (reasoning == result.end()) continue;
    const Json value = *reasoning;
    Json with = Json::object();
    with["thinking"] = value;
    for (const auto& [key, other] : result.items()) with[key] = other;
    with["reasoning_content"] = value;
    return with;
  }
  return result;
}

}  // namespace

TemplateError::TemplateError(const std::string& name, int line, std::string reason)
    : InputError(concat(name, " line ", line, ": ", reason)),
      line_(line),
      reason_(std::move(reason)) {}

SpecialTokens read_special_tokens(const fs::path& folder) {
  return read_tokenizer_config(folder).named;
}

struct ChatTemplate::Parts {
  NamedTemplate standard;
  std::optional<NamedTemplate> tool_use;
  SpecialTokens tokens;
  std::string literals;

  const NamedTemplate& choose(bool with_tools) const {
    return with_tools && tool_use ? *tool_use : standard;
  }
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}

ChatTemplate::~ChatTemplate() = default;

std::shared_ptr<const ChatTemplate> ChatTemplate::find(const fs::path& folder) {
  Texts texts = read_template_files(folder);
  if (texts.empty()) texts = read_config_templates(folder);
  if (texts.empty()) return nullptr;
  MT_CHECK_CONFIG(texts.contains("default"), folder.string(),
                  " has chat templates, but none of the name default");
  auto parts = std::make_unique<Parts>();
  parts->standard = parse_template(texts["default"].first, texts["default"].second);
  parts->literals = parts->standard.tree.literals;
  if (texts.contains("tool_use")) {
    parts->tool_use = parse_template(texts["tool_use"].first, texts["tool_use"].second);
    parts->literals += parts->tool_use->tree.literals;
  }
  parts->tokens = read_special_tokens(folder);
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(parts)));
}

std::shared_ptr<const ChatTemplate> ChatTemplate::load(const fs::path& folder) {
  std::shared_ptr<const ChatTemplate> found = find(folder);
  MT_CHECK_CONFIG(found != nullptr, folder.string(),
                  " has no chat template: neither chat_template.jinja nor chat_template in "
                  "tokenizer_config.json");
  return found;
}

std::shared_ptr<const ChatTemplate> ChatTemplate::from_text(std::string_view text,
                                                            const std::string& name,
                                                            SpecialTokens tokens) {
  auto parts = std::make_unique<Parts>();
  parts->standard = parse_template(name, std::string(text));
  parts->literals = parts->standard.tree.literals;
  parts->tokens = std::move(tokens);
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(parts)));
}

std::shared_ptr<const ChatTemplate> ChatTemplate::chatml(SpecialTokens tokens) {
  return from_text(kChatMl, "chatml", std::move(tokens));
}

std::shared_ptr<const ChatTemplate> ChatTemplate::named(const std::string& choice,
                                                        const fs::path& folder) {
  SpecialTokens tokens;
  if (!folder.empty()) tokens = read_special_tokens(folder);
  if (choice == "chatml") return chatml(std::move(tokens));
  return from_text(read_file(choice), choice, std::move(tokens));
}

RenderedChat ChatTemplate::render(const Json& messages, const Json& tools,
                                  const RenderSettings& settings) const {
  const NamedTemplate& chosen = parts_->choose(!tools.is_null());
  jinja::Budget budget(chosen.text.size() + bytes_of(messages) + bytes_of(tools) +
                       bytes_of(settings.variables));
  jinja::Interpreter interpreter(budget, settings.now);
  try {
    for (const auto& [name, token] : parts_->tokens)
      interpreter.define(name, jinja::text_value(token));
    for (const auto& [name, value] : settings.variables.items())
      interpreter.define(name, jinja::from_json(value, budget));
    jinja::Values values;
    for (const Json& message : messages) {
      if (!message.is_object()) jinja::fail("a message is no object");
      values.push_back(jinja::from_json(plain_message(message), budget));
    }
    interpreter.define("messages", jinja::make_list(std::move(values), budget));
    interpreter.define("tools", jinja::from_json(tools, budget));
    interpreter.define("documents", {});
    interpreter.define("add_generation_prompt", settings.add_generation_prompt);
    interpreter.run(chosen.tree);
  } catch (const jinja::Failure& failure) {
    throw TemplateError(chosen.name, interpreter.line(), failure.reason);
  }
  RenderedChat result{.text = interpreter.output()};
  for (const auto& [begin, end] : interpreter.generations())
    result.generations.push_back({begin, end});
  return result;
}

const std::string& ChatTemplate::name() const {
  return parts_->standard.name;
}

const std::string& ChatTemplate::text() const {
  return parts_->standard.text;
}

std::string ChatTemplate::fingerprint_text() const {
  Json print = Json::array(
      {parts_->standard.text, parts_->tool_use ? parts_->tool_use->text : "", parts_->tokens});
  return print.dump();
}

const SpecialTokens& ChatTemplate::special_tokens() const {
  return parts_->tokens;
}

bool ChatTemplate::marks_generations(bool with_tools) const {
  return parts_->choose(with_tools).tree.marks_generations;
}

const std::string& ChatTemplate::literal_text() const {
  return parts_->literals;
}

}  // namespace moetron
