#include "moetron/chat/chat_template.h"

#include <chrono>
#include <gmock/gmock.h>
#include <thread>

#include <gtest/gtest.h>

#include "moetron/base/file.h"
#include "moetron/base/temporary_folder.h"

namespace moetron {
namespace {

using testing::HasSubstr;

std::string render(const std::string& text, const Json& messages = Json::array(),
                   const Json& variables = Json::object()) {
  return ChatTemplate::from_text(text, "t", {{"bos_token", "<s>"}})
      ->render(messages, nullptr, {.variables = variables})
      .text;
}

// "line REASON" of the error.
std::string mistake(const std::string& text, const Json& variables = Json::object()) {
  try {
    return "rendered " + render(text, Json::array(), variables).substr(0, 200);
  } catch (const TemplateError& error) {
    return std::to_string(error.line()) + " " + error.reason();
  }
}

TEST(ChatTemplate, ErrorsNameTheTemplateAndTheLine) {
  try {
    render("{{ bos_token }}\n{{ raise_exception('no tools here') }}");
    FAIL();
  } catch (const TemplateError& error) {
    EXPECT_STREQ(error.what(), "t line 2: no tools here");
    EXPECT_EQ(error.exit_code(), kExitCorruptInput);
  }
  EXPECT_EQ(mistake("\n\n{{ nope.x }}"), "3 'nope' is undefined");
  EXPECT_EQ(mistake("{% for x in [1] %}\n{{ x.y.z }}{% endfor %}"),
            "2 'int object' has no attribute 'y'");
  EXPECT_EQ(mistake("a\n{% if %}"), "2 Expected an expression, got 'end of statement block'");
  EXPECT_EQ(mistake("{{ 'a' + 1 }}"), "1 can only concatenate str (not \"int\") to str");
}

// As jinja2 renders it: else is for a loop that no turn of which came to its end.
TEST(ChatTemplate, WhatIsCutShortHasNotBeenRun) {
  const std::string loop =
      "{% for x in [1, 2] %}{% if x == 1 or y %}{% continue %}{% endif %}{{ x }}"
      "{% else %}none{% endfor %}";
  EXPECT_EQ(render(loop, Json::array(), {{"y", true}}), "none");
  EXPECT_EQ(render(loop, Json::array(), {{"y", false}}), "2");
  EXPECT_EQ(render("{% for x in [1] %}{% break %}{% else %}none{% endfor %}"), "none");
}

TEST(ChatTemplate, RefusesByNameWhatItDoesNotHave) {
  EXPECT_EQ(mistake("x\n{% include 'other' %}"), "2 the tag {% include %} is not supported");
  EXPECT_EQ(mistake("{{ 1|groupby('a') }}"), "1 the filter groupby is not supported");
  EXPECT_EQ(mistake("{{ 1|nofilter }}"), "1 No filter named 'nofilter' found.");
  EXPECT_EQ(mistake("{{ 'a'.encode() }}"), "1 the method encode of texts is not supported");
  EXPECT_EQ(mistake("{{ '{:>4}'.format(1) }}"),
            "1 a format specification ({:>4}) is not supported");
}

TEST(ChatTemplate, SandboxHoldsUnderscoresAndChanges) {
  EXPECT_EQ(mistake("{{ ''.__class__.__mro__ }}"),
            "1 access to attribute '__class__' of 'str' object is unsafe.");
  EXPECT_EQ(mistake("{{ [].append(1) }}"),
            "1 access to attribute 'append' of 'list' object is unsafe.");
  EXPECT_EQ(mistake("{% set n = namespace() %}{% set n._x = 1 %}"),
            "1 Chat templates cannot store underscore-prefixed attributes on a namespace, but got "
            "'_x'. Please rename the attribute.");
}

// What runs for ever, or asks for memory without end, ends soon with a sentence.
TEST(ChatTemplate, HostileTemplatesEndSoon) {
  const std::string loops =
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
  const std::vector<std::pair<std::string, std::string>> hostile = {
      {loops, "takes too long"},
      {"{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "too much memory"},
      {"{{ 'x' * 9999999999999 }}", "too much memory"},
      {"{{ [0] * 9999999999 }}", "too much memory"},
      {"{% set n = namespace(s='x') %}{% for a in range(64) %}{% set n.s = n.s + n.s %}{% endfor "
       "%}",
       "too much memory"},
      {"{% set n = namespace(s=[]) %}{% for a in range(9999) %}{% set n.s = [n.s] %}{% endfor %}",
       "nested too deeply"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"},
      {"{{ range(99999999) }}", "Range too big"},
      {"{{ ('%99999999d' % 1) }}", "not supported"},
      {"{{ 'x'.ljust(99999999999) }}", "too much memory"},
      {"{{ 'x'.replace('', 'y' * 9999999) * 20 }}", "too much memory"},
      {"{{ 9 ** 9 ** 9 }}", "64 bits"},
      {"{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}", "nested too deeply"},
      {"{{ 1" +
           [] {
             std::string s;
             for (int i = 0; i < 5000; ++i) s += "+1";
             return s;
           }() +
           " }}",
       "nested too deeply"},
      {[] {
         std::string s;
         for (int i = 0; i < 5000; ++i) s += "{% if 1 %}";
         return s;
       }(),
       "nested too deeply"},
      {"{% set n = namespace() %}{% set n.n = n %}", "not supported"},
      {"{% set n = namespace(l=[1]) %}{% for a in range(99999) %}{% set n.l = n.l + n.l %}{% "
       "endfor %}",
       "too"},
  };
  for (const auto& [text, reason] : hostile) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_THAT(mistake(text), HasSubstr(reason)) << text.substr(0, 100);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LT(seconds.count(), 300) << text.substr(0, 100);
  }
}

TEST(ChatTemplate, MarksGenerationsInBytes) {
  const auto chat = ChatTemplate::from_text(
      "{% for m in messages %}\u00e9{% generation %}{{ m.content }}{% endgeneration %};{% endfor "
      "%}",
      "t");
  const RenderedChat rendered = chat->render(
      {{{"role", "assistant"}, {"content", "\u4f60"}}, {{"role", "assistant"}, {"content", "b"}}});
  EXPECT_EQ(rendered.text, "\u00e9\u4f60;\u00e9b;");
  EXPECT_THAT(rendered.generations, testing::ElementsAre(TextRange{2, 5}, TextRange{8, 9}));
  EXPECT_TRUE(chat->marks_generations(false));
}

TEST(ChatTemplate, TellsTheTimeThatIsAsked) {
  const auto chat = ChatTemplate::from_text("{{ strftime_now('%Y') }}", "t");
  EXPECT_EQ(chat->render(Json::array(), nullptr, {.now = 86400 * 366}).text, "1971");
}

TEST(ChatTemplate, LoadsWhatTransformersWould) {
  const TemporaryFolder folder("chat-test");
  const auto load = [&] { return ChatTemplate::load(folder.path()); };
  EXPECT_EQ(ChatTemplate::find(folder.path()), nullptr);
  EXPECT_THROW(load(), ConfigError);
  write_file(
      folder.path() / "tokenizer_config.json",
      R"({"eos_token": {"content": "</s>"}, "bos_token": null, "chat_template": "A{{ bos_token }}{{ eos_token }}"})");
  EXPECT_EQ(load()->render(Json::array()).text, "A</s>");
  write_file(
      folder.path() / "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(load()->render(Json::array()).text, "D");
  EXPECT_EQ(load()->render(Json::array(), Json::array()).text, "T");
  write_file(folder.path() / "chat_template.jinja", "F");
  EXPECT_EQ(load()->render(Json::array(), Json::array()).text, "F");
  write_file(folder.path() / "chat_template.jinja", "\n{% if %}");
  EXPECT_THROW(load(), TemplateError);
}

// A template is used by many threads at once.
TEST(ChatTemplate, RendersInThreads) {
  const auto chat = ChatTemplate::from_text(
      "{% for m in messages %}{{ m.content|upper }}{{ loop.index }}{% endfor %}", "t");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&chat, t] {
      const Json messages = {{{"content", std::string(1, static_cast<char>('a' + t))}},
                             {{"content", "z"}}};
      for (int i = 0; i < 200; ++i)
        EXPECT_EQ(chat->render(messages).text, std::string(1, static_cast<char>('A' + t)) + "1Z2");
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(ChatTemplate, ChatMlMarksAnswers) {
  const RenderedChat chat = ChatTemplate::chatml()->render(
      {{{"role", "user"}, {"content", "hi"}}, {{"role", "assistant"}, {"content", "yo"}}}, nullptr,
      {.add_generation_prompt = true});
  EXPECT_EQ(chat.text,
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>"
            "assistant\n");
  ASSERT_EQ(chat.generations.size(), 1);
  EXPECT_EQ(chat.text.substr(chat.generations[0].begin,
                             chat.generations[0].end - chat.generations[0].begin),
            "yo<|im_end|>");
}

}  // namespace
}  // namespace moetron
