#include "moetron/chat/turn_spans.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "moetron/chat/marked_text.h"

namespace moetron {
namespace {

size_t common_beginning(std::string_view one, std::string_view other) {
  const size_t most = std::min(one.size(), other.size());
  return static_cast<size_t>(
      std::mismatch(one.begin(), one.begin() + static_cast<std::ptrdiff_t>(most), other.begin())
          .first -
      one.begin());
}

// The longest end of `until` with which `rest` begins (the prefix function of Knuth, Morris and
// Pratt).
size_t longest_common_end(std::string_view until, std::string_view rest) {
  rest = rest.substr(0, until.size());
  std::vector<size_t> fallback(rest.size() + 1, 0);
  for (size_t i = 1, length = 0; i < rest.size(); ++i) {
    while (length > 0 && rest[i] != rest[length]) length = fallback[length];
    if (rest[i] == rest[length]) ++length;
    fallback[i + 1] = length;
  }
  size_t length = 0;
  for (const char byte : until) {
    while (length > 0 && (length == rest.size() || byte != rest[length])) length = fallback[length];
    if (length < rest.size() && byte == rest[length]) ++length;
  }
  return length;
}

class TurnFinder {
 public:
  TurnFinder(const ChatTemplate& chat_template, const Json& messages, const Json& tools,
             const RenderSettings& settings, const std::vector<std::string>& end_tokens)
      : template_(chat_template),
        messages_(messages),
        tools_(tools),
        settings_(settings),
        end_tokens_(end_tokens) {}

  RenderedTurns by_blocks(const std::vector<size_t>& asked) const {
    const RenderedChat chat = template_.render(messages_, tools_, settings_);
    std::vector<size_t> assistants;
    for (size_t i = 0; i < messages_.size(); ++i)
      if (messages_[i].value("role", "") == "assistant") assistants.push_back(i);
    const bool fits = assistants.size() == chat.generations.size();
    MT_CHECK_INPUT(fits || asked == assistants, template_.name(), " has ", chat.generations.size(),
                   " {% generation %} blocks for ", assistants.size(),
                   " assistant turns: which of them are trained cannot be told apart");
    RenderedTurns result{chat.text, {}};
    for (size_t i = 0; i < chat.generations.size(); ++i) {
      const size_t message = fits            ? assistants[i]
                             : asked.empty() ? 0
                                             : asked[std::min(i, asked.size() - 1)];
      if (std::find(asked.begin(), asked.end(), message) != asked.end())
        result.turns.push_back({message, chat.generations[i]});
    }
    return result;
  }

  RenderedTurns by_prefixes(const std::vector<size_t>& asked) const {
    RenderedTurns result{template_.render(messages_, tools_, settings_).text, {}};
    for (const size_t message : asked)
      result.turns.push_back({message, find(message, result.text)});
    return result;
  }

 private:
  // The text of the first `count` messages, or nothing where the template refuses them.
  std::optional<std::string> render_first(size_t count, bool add_generation_prompt) const {
    RenderSettings settings = settings_;
    settings.add_generation_prompt = add_generation_prompt;
    const Json first(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(count));
    try {
      return template_.render(first, tools_, settings).text;
    } catch (const TemplateError&) {
      return std::nullopt;
    }
  }

  TextRange find(size_t message, std::string_view full) const {
    const TextRange found = find_by_prefix(message, full);
    return found.begin < found.end ? found : find_by_replacing(message, full);
  }

  TextRange find_by_prefix(size_t message, std::string_view full) const {
    const std::optional<std::string> before = render_first(message, true);
    const bool is_last = message + 1 == messages_.size();
    const std::optional<std::string> until =
        is_last ? std::string(full) : render_first(message + 1, false);
    if (!before || !until) return {};
    size_t begin = before->size();
    if (!full.starts_with(*before)) {
      // The generation prompt writes what the turn does not have. The turn begins where they part,
      // if that is behind what was said before.
      begin = common_beginning(*before, full);
      const std::optional<std::string> context = render_first(message, false);
      if (!context || context->size() > begin || !full.starts_with(*context)) return {};
    }
    if (!std::string_view(*until).starts_with(full.substr(0, begin))) return {};
    const std::string_view turn = std::string_view(*until).substr(begin);
    const std::string_view rest = full.substr(begin);
    const size_t length = rest.starts_with(turn) ? turn.size() : longest_common_end(turn, rest);
    return {begin, begin + trained_length(rest.substr(0, length))};
  }

  // Where the text changes when the turn says something else: for templates that write what was
  // before the turn differently once more is said, or that refuse the beginning of a conversation.
  TextRange find_by_replacing(size_t message, std::string_view full) const {
    static constexpr std::string_view kOther = "\x01\x02\x01";
    Json messages = messages_;
    messages[message] = {{"role", messages_[message]["role"]}, {"content", kOther}};
    std::string other;
    try {
      other = template_.render(messages, tools_, settings_).text;
    } catch (const TemplateError&) {
      return {};
    }
    const size_t begin = common_beginning(full, other);
    const size_t most = std::min(full.size(), other.size()) - begin;
    const size_t end = static_cast<size_t>(
        std::mismatch(full.rbegin(), full.rbegin() + static_cast<std::ptrdiff_t>(most),
                      other.rbegin())
            .first -
        full.rbegin());
    // A template may write something around an answer, but what changes must be the answer alone:
    // once, without the tokens that part turns.
    constexpr size_t kAround = 64;
    const std::string_view changed =
        std::string_view(other).substr(begin, other.size() - end - begin);
    const size_t place = changed.find(kOther);
    const bool is_once = place != std::string_view::npos && place == changed.rfind(kOther);
    if (!is_once || changed.size() > kOther.size() + kAround) return {};
    for (const std::string& token : end_tokens_)
      if (changed.find(token) != std::string_view::npos) return {};
    const std::string_view behind = full.substr(full.size() - end);
    size_t behind_token = 0;
    for (const std::string& token : end_tokens_)
      if (behind.starts_with(token)) behind_token = std::max(behind_token, token.size());
    return {begin, full.size() - end + behind_token};
  }

  // Without white space behind the token that ends the turn.
  size_t trained_length(std::string_view turn) const {
    const size_t last = turn.find_last_not_of(" \t\r\n");
    if (last == std::string_view::npos) return turn.size();
    const std::string_view stripped = turn.substr(0, last + 1);
    const bool ends =
        std::any_of(end_tokens_.begin(), end_tokens_.end(),
                    [stripped](const std::string& token) { return stripped.ends_with(token); });
    return ends && !ends_with_mark(stripped) ? stripped.size() : turn.size();
  }

  const ChatTemplate& template_;
  const Json& messages_;
  const Json& tools_;
  const RenderSettings& settings_;
  const std::vector<std::string>& end_tokens_;
};

}  // namespace

RenderedTurns render_turns(const ChatTemplate& chat_template, const Json& messages,
                           const Json& tools, const RenderSettings& settings,
                           const std::vector<size_t>& asked,
                           const std::vector<std::string>& end_tokens) {
  const TurnFinder finder(chat_template, messages, tools, settings, end_tokens);
  return chat_template.marks_generations(!tools.is_null()) ? finder.by_blocks(asked)
                                                           : finder.by_prefixes(asked);
}

}  // namespace moetron
