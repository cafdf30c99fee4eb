// A model's chat template: from messages to the text that the model was trained on, with the
// results of transformers' apply_chat_template. Templates are programs by strangers (Jinja): what
// they may spend is bounded, and what of Jinja is missing here is refused by name.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"

namespace moetron {

// A template that cannot be read, or did not get through: it asked for what is not there, called
// raise_exception, made a mistake on these messages, or spent more than it may. what() is
// "NAME line LINE: REASON".
class TemplateError : public InputError {
 public:
  TemplateError(const std::string& name, int line, std::string reason);
  int line() const { return line_; }                     // of the template, from 1 on
  const std::string& reason() const { return reason_; }  // jinja2's words, where it has them

 private:
  int line_;
  std::string reason_;
};

// bos_token, eos_token, ... as transformers gives them to a template; what a tokenizer lacks is
// absent.
using SpecialTokens = std::map<std::string, std::string>;
// Those of a model's or tokenizer's folder: for templates that come from elsewhere.
SpecialTokens read_special_tokens(const std::filesystem::path& folder);

struct RenderSettings {
  bool add_generation_prompt = false;
  Json variables = Json::object();  // more variables, such as enable_thinking; they win over tokens
  std::optional<std::time_t> now;   // what strftime_now() tells; the clock without it
};

// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
  bool operator==(const TextRange&) const = default;
};

struct RenderedChat {
  std::string text;                    // UTF-8
  std::vector<TextRange> generations;  // the {% generation %} blocks, in order of their ends
};

// Immutable after loading: every method may be called from many threads at once.
class ChatTemplate {
 public:
  // The template of a model's or tokenizer's folder: chat_template.jinja (and
  // chat_templates/NAME.jinja), else chat_template of tokenizer_config.json, a string or a list of
  // {name, template}; with the special tokens of tokenizer_config.json and special_tokens_map.json.
  // Of several templates, "tool_use" renders what has tools, "default" the rest. ConfigError where
  // the folder has none (says what to do), InputError for files that are not what they should be,
  // TemplateError for a template that does not parse.
  static std::shared_ptr<const ChatTemplate> load(const std::filesystem::path& folder);
  // The same, or null where the folder has none.
  static std::shared_ptr<const ChatTemplate> find(const std::filesystem::path& folder);
  // `name` is what errors say.
  static std::shared_ptr<const ChatTemplate> from_text(std::string_view text,
                                                       const std::string& name,
                                                       SpecialTokens tokens = {});
  // ChatML, as Qwen's models speak it without tools: for models that have no template of their own.
  static std::shared_ptr<const ChatTemplate> chatml(SpecialTokens tokens = {});
  // What a user names in place of a model's own: a file, or "chatml"; with the special tokens of
  // `folder` (empty: none). InputError where the file cannot be read.
  static std::shared_ptr<const ChatTemplate> named(const std::string& choice,
                                                   const std::filesystem::path& folder);

  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // `messages`: an array of objects with a role; `tools`: an array of schemas, or null. As
  // transformers does, keys of messages whose value is null are left out, and reasoning that is
  // under one of the names reasoning_content, thinking and reasoning is given under the first two.
  // Throws TemplateError.
  RenderedChat render(const Json& messages, const Json& tools = nullptr,
                      const RenderSettings& settings = {}) const;

  const std::string& name() const;
  const std::string& text() const;  // of the template for what has no tools
  // The templates' texts, with names: what a cache of rendered conversations is keyed by.
  std::string fingerprint_text() const;
  const SpecialTokens& special_tokens() const;
  // Whether the template that renders with (or without) tools has {% generation %} blocks.
  bool marks_generations(bool with_tools) const;
  // Raw text and string literals of the templates with NULs between them: the control tokens that
  // the template writes are found here.
  const std::string& literal_text() const;

 private:
  struct Parts;
  explicit ChatTemplate(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace moetron
