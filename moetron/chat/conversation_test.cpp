#include "moetron/chat/conversation.h"

#include <cstdlib>
#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/chat/conversation_file.h"

namespace moetron {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

// "SHAPE MESSAGES TOOLS", or "REFUSAL: DETAIL".
std::string read(const std::string& json, std::optional<ConversationShape> shape = std::nullopt) {
  const ConversationResult result = read_conversation(json, "f line 1", shape);
  if (result.refused)
    return std::string(refusal_name(result.refused->refusal)) + ": " + result.refused->detail;
  const Conversation& conversation = result.record->conversation;
  EXPECT_EQ(conversation.place, "f line 1");
  std::string text = std::string(shape_name(result.record->shape)) + " ";
  for (const Json& message : conversation.messages) {
    text += message["role"].get<std::string>().substr(0, 1) + ":" +
            message["content"].get<std::string>();
    for (const char* key : {"reasoning_content", "weight", "tool_calls", "tool_call_id"})
      if (message.contains(key)) text += " " + std::string(key) + "=" + message[key].dump();
    text += "; ";
  }
  if (!conversation.tools.is_null()) text += "tools=" + conversation.tools.dump();
  if (result.record->rejected)
    text += "or " + result.record->rejected->messages.back()["content"].get<std::string>();
  return text;
}

TEST(Conversation, ShapesAreToldByTheirKeys) {
  EXPECT_EQ(
      read(
          R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}, {"role": "assistant", "content": "c"}]})"),
      "messages u:a; a:b weight=0.0; a:c; ");
  EXPECT_EQ(read(R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])"),
            "messages u:a; a:b; ");
  EXPECT_EQ(
      read(
          R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"})"),
      "sharegpt s:s; u:a; a:b; ");
  EXPECT_EQ(
      read(
          R"({"instruction": "a", "input": "b", "output": "c", "history": [["h", "i"]], "system": ""})"),
      "alpaca u:h; a:i; u:a\nb; a:c; ");
  EXPECT_EQ(read(R"({"prompt": "a", "completion": "b"})"), "prompt u:a; a:b; ");
  EXPECT_EQ(read(R"({"question": "a", "answer": "b", "id": 7})"), "prompt u:a; a:b; ");
  EXPECT_EQ(
      read(
          R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})"),
      "prompt u:a; a:b; ");
}

TEST(Conversation, ToolsAndReasoningComeOutInOneForm) {
  EXPECT_EQ(
      read(
          R"({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
                     {"from": "observation", "value": "r"}, {"from": "gpt", "value": "b"}], "tools": "[{\"name\": \"f\"}]"})"),
      R"(sharegpt u:a; a: tool_calls=[{"type":"function","function":{"name":"f","arguments":{"x":1}}}]; t:r; a:b; tools=[{"type":"function","function":{"name":"f"}}])");
  EXPECT_EQ(
      read(
          R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                     {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                     {"role": "tool", "tool_call_id": "c1", "content": "r"},
                     {"role": "assistant", "content": [{"type": "reasoning", "value": "why"}, {"type": "text", "value": "z"}], "loss_weight": 0.5}],
                     "parallel_tool_calls": true, "tools": []})"),
      R"(messages u:ab; a: tool_calls=[{"type":"function","id":"c1","function":{"name":"f","arguments":"{}"}}]; t:r tool_call_id="c1"; a:z reasoning_content="why" weight=0.5; )");
}

TEST(Conversation, PairsShareTheirPrompt) {
  EXPECT_EQ(
      read(
          R"({"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}})"),
      "sharegpt u:a; a:b; or c");
  EXPECT_EQ(read(R"({"prompt": "a", "chosen": "b", "rejected": "c"})"), "prompt u:a; a:b; or c");
  EXPECT_EQ(read(R"({"instruction": "a", "input": "", "chosen": "b", "rejected": "c"})"),
            "alpaca u:a; a:b; or c");
  EXPECT_EQ(read(R"({"instruction": "a", "output": ["b", "c"]})"), "alpaca u:a; a:b; or c");
  const std::string whole =
      R"({"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                               "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]})";
  EXPECT_EQ(read(whole), "messages u:a; a:b; or c");
  EXPECT_EQ(read_conversation(whole, "p").record->num_shared, 1);
  EXPECT_THAT(read(R"({"prompt": "a", "chosen": "b", "rejected": "b"})"),
              HasSubstr("do not differ"));
  EXPECT_THAT(
      read(R"({"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
               "rejected": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "c"}]})"),
      HasSubstr("no pair: chosen and rejected do not answer the same: message 1 differs"));
  EXPECT_THAT(read(R"({"prompt": "a", "chosen": "b"})"),
              HasSubstr("unknown shape: of chosen and rejected there is only one"));
}

TEST(Conversation, RefusesWithTheReason) {
  const auto messages = [](const std::string& turns) {
    return read("{\"messages\": [" + turns + "]}");
  };
  const std::string user = R"({"role": "user", "content": "a"})";
  EXPECT_EQ(read("{\"messages\": [1"), "bad JSON: the record is not JSON: error at byte 16 of 15");
  EXPECT_EQ(read("3"), "unknown shape: it is no object");
  EXPECT_EQ(read(R"({"text": "a", "b": 1})"), "unknown shape: the keys are text, b");
  EXPECT_EQ(messages(user + R"(, {"role": "bard2", "content": "b"})"),
            "unknown role: role \"bard2\" of message 2");
  EXPECT_EQ(messages(user + R"(, {"content": "b"})"), "unknown role: message 2 has no role");
  EXPECT_EQ(messages(user + R"(, {"role": "assistant", "content": ""})"),
            "empty answer: message 2");
  EXPECT_EQ(messages(user + R"(, {"role": "assistant", "content": null})"),
            "empty answer: message 2");
  EXPECT_EQ(messages(user), "nothing to train on: no assistant turn of a weight above 0");
  EXPECT_EQ(messages(user + R"(, {"role": "assistant", "content": "b", "weight": 0})"),
            "nothing to train on: no assistant turn of a weight above 0");
  EXPECT_EQ(
      messages(R"({"role": "system", "content": "s"}, {"role": "assistant", "content": "b"})"),
      "no user turn: 2 messages");
  EXPECT_EQ(messages(R"({"role": "user", "content": 3})"),
            "wrong type: the content of message 1 is neither a text nor a list of parts");
  EXPECT_EQ(messages(R"({"role": "user", "content": [{"type": "image_url"}]})"),
            "not text: a part of message 1 is of type \"image_url\"");
  EXPECT_EQ(
      messages(R"({"role": "user", "content": "a", "weight": 1})"),
      "wrong type: the weight of message 1, of a user, is not 0: only assistants are trained");
  EXPECT_EQ(messages(user + R"(, {"role": "assistant", "content": "b", "weight": -1})"),
            "wrong type: the weight of message 2 is not a number from 0 on");
  EXPECT_EQ(read(R"({"messages": [], "images": ["a.png"]})"), "not text: the record has images");
  EXPECT_EQ(read(R"({"instruction": 1, "output": "b"})"), "wrong type: the prompt is not a text");
  EXPECT_EQ(read(R"({"prompt": "a", "completion": "b"})", ConversationShape::kAlpaca),
            "unknown shape: it has the shape prompt, not alpaca");
}

// "NUMBER:JSON" of each record.
std::vector<std::string> records(const fs::path& path) {
  std::vector<std::string> all;
  for_each_record(path, [&all](const RawRecord& record) {
    all.push_back(std::to_string(record.number) + (record.is_line ? "L " : "R ") + record.json);
    return true;
  });
  return all;
}

TEST(ConversationFile, CutsLinesArraysAndObjects) {
  const TemporaryFolder folder("chat-test");
  const auto of = [&folder](const std::string& name, const std::string& text) {
    write_file(folder.path() / name, text);
    return records(folder.path() / name);
  };
  EXPECT_THAT(of("a.jsonl", "\xEF\xBB\xBF{\"a\": 1}\r\n\n  \n{bad\n[1]"),
              ElementsAre("1L {\"a\": 1}", "4L {bad", "5L [1]"));
  EXPECT_THAT(of("a.json", " [ {\"a\": \"],}\\\"\"}, [1, 2] ,3]\n"),
              ElementsAre("1R {\"a\": \"],}\\\"\"}", "2R [1, 2] ", "3R 3"));
  EXPECT_THAT(of("b.json", "{\"a\": 1}\n{\"b\": 2}\n"),
              ElementsAre("1L {\"a\": 1}", "2L {\"b\": 2}"));
  EXPECT_THAT(of("c.json", "{\n \"a\": 1\n}\n{\"b\":\n2}"),
              ElementsAre("1R {\n \"a\": 1\n}", "2R {\"b\":\n2}"));
  EXPECT_THAT(of("d.json", "[]"), ElementsAre());
  EXPECT_THAT(of("e.json", "[{\"a\": 1}, {\"b\": "),
              ElementsAre("1R {\"a\": 1}", "2R {\"b\":  the array does not end"));
  EXPECT_THAT(of("f.json", "[1] x"), ElementsAre("1R 1", "2R ] x"));
  EXPECT_THAT(of("g.json", ""), ElementsAre());
}

TEST(ConversationFile, ReadsWhatIsPacked) {
  const TemporaryFolder folder("chat-test");
  const fs::path plain = folder.path() / "a.jsonl";
  std::string text;
  for (int i = 0; i < 30000; ++i) text += "{\"a\": " + std::to_string(i * 7919 % 10007) + "}\n";
  write_file(plain, text);
  const std::vector<std::string> expected = records(plain);
  ASSERT_EQ(expected.size(), 30000);
  ASSERT_EQ(std::system(("gzip -k " + plain.string()).c_str()), 0);
  EXPECT_EQ(records(folder.path() / "a.jsonl.gz"), expected);
  const std::string packed = read_file(folder.path() / "a.jsonl.gz");
  write_file(folder.path() / "two.jsonl.gz", packed + packed);
  EXPECT_EQ(records(folder.path() / "two.jsonl.gz").size(), 60000);
  write_file(folder.path() / "cut.jsonl.gz", packed.substr(0, packed.size() / 2));
  EXPECT_THROW(records(folder.path() / "cut.jsonl.gz"), InputError);
  std::string damaged = packed;
  damaged[packed.size() / 2] ^= 0x55;
  write_file(folder.path() / "damaged.jsonl.gz", damaged);
  EXPECT_THROW(records(folder.path() / "damaged.jsonl.gz"), InputError);
  EXPECT_THROW(records(folder.path() / "absent.jsonl"), InputError);
}

// A frame of one raw block.
TEST(ConversationFile, ReadsZstandard) {
  const TemporaryFolder folder("chat-test");
  const std::string with_sum("\x28\xb5\x2f\xfd\x24\x09\x49\x00\x00{\"a\": 1}\n", 18);
  write_file(folder.path() / "a.jsonl.zst",
             std::string("\x28\xb5\x2f\xfd\x20\x09\x49\x00\x00{\"a\": 1}\n", 18));
  EXPECT_THAT(records(folder.path() / "a.jsonl.zst"), ElementsAre("1L {\"a\": 1}"));
  write_file(folder.path() / "cut.jsonl.zst",
             std::string("\x28\xb5\x2f\xfd\x20\x09\x49\x00\x00{\"a\"", 13));
  EXPECT_THROW(records(folder.path() / "cut.jsonl.zst"), InputError);
  write_file(folder.path() / "sum.jsonl.zst", with_sum + "\1\2\3\4");
  EXPECT_THROW(records(folder.path() / "sum.jsonl.zst"), InputError);
}

TEST(Conversation, NeedsNoAnswerWhereItIsAsked) {
  const auto read = [](const std::string& turns) {
    return read_conversation("{\"messages\": [" + turns + "]}", "p", std::nullopt,
                             ConversationUse::kAsking);
  };
  const std::string user = R"({"role": "user", "content": "a"})";
  EXPECT_EQ(read(user).record->conversation.messages.size(), 1);
  EXPECT_EQ(read(R"({"role": "system", "content": "a"})").refused->refusal, Refusal::kNoUserTurn);
}

TEST(ConversationFile, CountsAndNamesWhatIsRefused) {
  const TemporaryFolder folder("chat-test");
  const fs::path path = folder.path() / "a.jsonl";
  write_file(
      path,
      "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"\"}\nx\n"
      "{\"instruction\": \"a\", \"output\": \"b\"}\n");
  int taken = 0;
  const ConversationCounts counts = read_conversations(
      {path}, std::nullopt, false, [&taken](const ConversationRecord&) { ++taken; });
  EXPECT_EQ(taken, 2);
  EXPECT_EQ(counts.taken(), 2);
  EXPECT_EQ(counts.refused(), 2);
  EXPECT_EQ(
      counts.summary(),
      "2 conversations (1 alpaca, 1 prompt)\n1 refused, bad JSON: " + path.string() +
          " line 3 (the record is not JSON: error at byte 1 of 1)\n1 refused, empty answer: " +
          path.string() + " line 2 (message 2)");
  try {
    read_conversations({path}, std::nullopt, true, [](const ConversationRecord&) {});
    FAIL();
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()), path.string() + " line 2: empty answer: message 2");
  }
}

}  // namespace
}  // namespace moetron
