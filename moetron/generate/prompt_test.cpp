#include "moetron/generate/prompt.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PromptTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_ = fs::temp_directory_path() / ("moetron_prompt_" + std::to_string(::getpid()));
};

TEST_F(PromptTest, LinesComeWithoutWhatEditorsAdd) {
  write_file(folder_ / "p", "\xef\xbb\xbfone\r\n\r\n\ntwo \r three\r\nlast");
  EXPECT_THAT(read_prompts(folder_ / "p"), ElementsAre("one", "two \r three", "last"));
  write_file(folder_ / "empty", "\xef\xbb\xbf\r\n");
  EXPECT_THROW(read_prompts(folder_ / "empty"), ConfigError);
}

TEST_F(PromptTest, WhatTheTokenizerAddsComesOnce) {
  write_file(folder_ / "tokenizer.json", R"({
    "added_tokens": [{"id": 2, "content": "<s>", "special": true},
                     {"id": 3, "content": "</s>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}},
                 {"SpecialToken": {"id": "</s>"}}],
      "special_tokens": {"<s>": {"ids": [2]}, "</s>": {"ids": [3]}}},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})");
  const auto tokenizer = Tokenizer::load(folder_);
  EXPECT_THAT(prompt_tokens(*tokenizer, "ab"), ElementsAre(2, 0, 1, 3));
  EXPECT_THAT(prompt_tokens(*tokenizer, "<s>ab"), ElementsAre(2, 0, 1, 3));
  EXPECT_THAT(prompt_tokens(*tokenizer, "ab</s>"), ElementsAre(2, 0, 1, 3));
  EXPECT_THAT(prompt_tokens(*tokenizer, ""), ElementsAre(2, 3));
  EXPECT_THAT(prompt_tokens(*Tokenizer::bytes(), "a"), ElementsAre('a'));
}

TEST_F(PromptTest, EndTokensComeFromTheModelsFiles) {
  const auto tokenizer = Tokenizer::bytes();
  EXPECT_THAT(end_tokens(folder_, *tokenizer), ElementsAre(256));
  write_file(folder_ / "config.json", R"({"eos_token_id": 7})");
  EXPECT_THAT(end_tokens(folder_, *tokenizer), ElementsAre(7));
  write_file(folder_ / "generation_config.json", R"({"eos_token_id": null})");
  EXPECT_THAT(end_tokens(folder_, *tokenizer), ElementsAre(7));
  write_file(folder_ / "generation_config.json", R"({"eos_token_id": [8, 9]})");
  EXPECT_THAT(end_tokens(folder_, *tokenizer), ElementsAre(8, 9));
  for (const char* wrong : {"\"x\"", "-1", "[1.5]", "[4294967296]", "{}"}) {
    write_file(folder_ / "generation_config.json",
               std::string("{\"eos_token_id\": ") + wrong + "}");
    EXPECT_THROW(end_tokens(folder_, *tokenizer), InputError) << wrong;
  }
}

}  // namespace
}  // namespace moetron
