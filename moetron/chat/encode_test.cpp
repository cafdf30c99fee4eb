#include "moetron/chat/encode.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

using testing::ElementsAre;

Conversation talk(const Json& messages) {
  Conversation conversation;
  conversation.messages = messages;
  return conversation;
}

const Json kTwoTurns = {{{"role", "user"}, {"content", "a"}},
                        {{"role", "assistant"}, {"content", "bb"}},
                        {{"role", "user"}, {"content", "c"}},
                        {{"role", "assistant"}, {"content", "dd"}, {"weight", 0.5}}};

// The text by bytes, what is trained in brackets, with a weight other than 1 behind them.
std::string shown(const std::string& text, const Conversation& conversation,
                  EncodeSettings settings = {}) {
  const ChatEncoder encoder(ChatTemplate::from_text(text, "t"), Tokenizer::bytes(), settings);
  const EncodedConversation encoded = encoder.encode(conversation);
  EXPECT_EQ(encoded.tokens.size(), encoded.weights.size());
  std::string out;
  for (size_t i = 0; i < encoded.tokens.size(); ++i) {
    const float before = i == 0 ? 0 : encoded.weights[i - 1];
    const float weight = encoded.weights[i];
    if (before != weight && before != 0) out += before == 1 ? "]" : "]*";
    if (before != weight && weight != 0) out += "[";
    out += static_cast<char>(encoded.tokens[i]);
  }
  if (!encoded.weights.empty() && encoded.weights.back() != 0)
    out += encoded.weights.back() == 1 ? "]" : "]*";
  return out + (encoded.num_lost_turns > 0 ? " lost" : "");
}

constexpr const char* kPlain =
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}.\n{% endfor %}{% if "
    "add_generation_prompt %}a:{% endif %}";

TEST(Encode, FindsTurnsByPrefixes) {
  EXPECT_EQ(shown(kPlain, talk(kTwoTurns)), "u:a.\na:[bb.\n]u:c.\na:[dd.\n]*");
  EXPECT_EQ(shown(kPlain, talk(kTwoTurns), {.last_turn_only = true}),
            "u:a.\na:bb.\nu:c.\na:[dd.\n]*");
}

// Qwen3's way: what was thought is gone once the user speaks again, so what is left is trained.
TEST(Encode, TrainsWhatIsLeftOfTurnsThatAreRewritten) {
  const std::string text =
      "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' and loop.last %}<t>{% "
      "endif %}{{ m.content }}."
      "{% endfor %}{% if add_generation_prompt %}a:{% endif %}";
  EXPECT_EQ(shown(text, talk(kTwoTurns)), "u:a.a:[bb.]u:c.a:[<t>dd.]*");
}

// DeepSeek-R1's way: the prompt opens a thought that the turn itself does not have.
TEST(Encode, TurnsBeginWhereThePromptParts) {
  const std::string text = std::string(kPlain) + "{% if add_generation_prompt %}<t>{% endif %}";
  EXPECT_EQ(shown(text, talk(kTwoTurns)), "u:a.\na:[bb.\n]u:c.\na:[dd.\n]*");
}

TEST(Encode, FindsTurnsByWhatChangesWherePrefixesDoNotHelp) {
  const std::string counts =
      "{{ messages|length }}{% for m in messages %}{{ m.content }}.{% endfor %}";
  EXPECT_EQ(shown(counts, talk(kTwoTurns)), "4a.[bb].c.[dd]*.");
  const std::string refuses =
      "{% if messages|length < 2 %}{{ raise_exception('short') }}{% endif %}" + std::string(kPlain);
  EXPECT_EQ(shown(refuses, talk(kTwoTurns)), "u:a.\na:[bb].\nu:c.\na:[dd.\n]*");
}

TEST(Encode, CountsTurnsThatAreNotFound) {
  const std::string hides =
      "{{ messages|length }}{% for m in messages %}{{ m.content if loop.last or m.role == 'user' "
      "}}{% endfor %}";
  EXPECT_EQ(shown(hides, talk(kTwoTurns)), "4ac[dd]* lost");
  const std::string repeats =
      "{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}{{ "
      "messages[1].content }}";
  EXPECT_EQ(shown(repeats, talk(kTwoTurns)), "4abbc[dd]*bb lost");
}

TEST(Encode, GenerationBlocksSayWhatIsTrained) {
  const std::string text =
      "{% for m in messages %}{% if m.role == 'assistant' %}<{% generation %}{{ m.content }}{% "
      "endgeneration %}>{% else %}{{ m.content }}{% endif %}{% endfor %}";
  EXPECT_EQ(shown(text, talk(kTwoTurns)), "a<[bb]>c<[dd]*>");
  EXPECT_EQ(shown(text, talk(kTwoTurns), {.last_turn_only = true}), "a<bb>c<[dd]*>");
  Json weighted = kTwoTurns;
  weighted[1]["weight"] = 0;
  EXPECT_EQ(shown(text, talk(weighted)), "a<bb>c<[dd]*>");
  // Two blocks for each turn: weights cannot be told apart.
  const std::string twice =
      "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}";
  EXPECT_THROW(shown(twice, talk(weighted)), InputError);
}

TEST(Encode, ThinkingIsAVariableAndOffDropsReasoning) {
  Json messages = kTwoTurns;
  messages[3]["reasoning_content"] = "why";
  const std::string text =
      "{{ enable_thinking }}{% for m in messages %}{{ m.reasoning_content }}{{ m.content }}{% "
      "endfor %}";
  EXPECT_EQ(shown(text, talk(messages), {.thinking = ThinkingChoice::kOff}), "Falsea[bb]c[dd]*");
  EXPECT_EQ(shown(text, talk(messages), {.thinking = ThinkingChoice::kOn}), "Truea[bb]c[whydd]*");
}

TEST(Encode, ArgumentsComeInTheFormThatTheTemplateTakes) {
  const auto call = [](const Json& arguments) {
    return talk(
        {{{"role", "user"}, {"content", "a"}},
         {{"role", "assistant"},
          {"content", ""},
          {"tool_calls",
           {{{"type", "function"}, {"function", {{"name", "f"}, {"arguments", arguments}}}}}}}});
  };
  const std::string begin = "{% for m in messages %}{% for c in m.tool_calls or [] %}";
  const std::string end = "{% endfor %}{% endfor %}";
  const std::string wants_object = begin + "{{ c.function.arguments|tojson }}" + end;
  EXPECT_EQ(shown(wants_object, call("{\"x\":1}")), "[{\"x\": 1}]");
  const std::string wants_text = begin + "{{ '' + c.function.arguments }}" + end;
  EXPECT_EQ(shown(wants_text, call(Json{{"x", "\u00e9"}})), "[{\"x\": \"\u00e9\"}]");
  const std::string takes_both = begin +
                                 "{{ c.function.arguments if c.function.arguments is string else "
                                 "c.function.arguments|tojson }}" +
                                 end;
  EXPECT_EQ(shown(takes_both, call("{\"x\":1}")), "[{\"x\":1}]");
}

TEST(Encode, PromptsEndWithTheGenerationPrompt) {
  const ChatEncoder encoder(ChatTemplate::from_text(kPlain, "t"), Tokenizer::bytes());
  const std::vector<int32_t> prompt = encoder.encode_prompt({{{"role", "user"}, {"content", "a"}}});
  EXPECT_EQ(std::string(prompt.begin(), prompt.end()), "u:a.\na:");
  EXPECT_THAT(encoder.stop_tokens(), ElementsAre(256));
}

TEST(Encode, TheKeyOfCachesTellsSettingsAndTemplate) {
  const auto key = [](const char* text, EncodeSettings settings) {
    return ChatEncoder(ChatTemplate::from_text(text, "t"), Tokenizer::bytes(), settings)
        .fingerprint_text();
  };
  EXPECT_NE(key("a", {}), key("b", {}));
  EXPECT_NE(key("a", {}), key("a", {.last_turn_only = true}));
  EXPECT_NE(key("a", {}), key("a", {.thinking = ThinkingChoice::kOff}));
  EXPECT_EQ(key("a", {}), key("a", {}));
}

}  // namespace
}  // namespace moetron
