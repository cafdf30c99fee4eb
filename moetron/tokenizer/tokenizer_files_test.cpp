// Vocabularies of tiktoken and SentencePiece models, whole and damaged.
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/random.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

// a, b, c, a space, ab, bc, " ab", abc, bcc, and a byte of a character.
constexpr std::string_view kRanks =
    "YQ== 0\nYg== 1\nYw== 2\nIA== 3\nYWI= 4\nYmM= 5\r\nIGFi 6\n\nYWJj 7\nYmNj 9\n4g== 10\n";

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string number_field(int field, uint64_t value) {
  return varint(static_cast<uint64_t>(field) << 3) + varint(value);
}

std::string text_field(int field, std::string_view text) {
  return varint(static_cast<uint64_t>(field) << 3 | 2) + varint(text.size()) + std::string(text);
}

std::string piece(std::string_view text, float score, int type = 1) {
  std::string bytes(sizeof(score), '\0');
  std::memcpy(bytes.data(), &score, sizeof(score));
  return text_field(1, text_field(1, text) + varint(2 << 3 | 5) + bytes +
                           (type == 1 ? "" : number_field(3, static_cast<uint64_t>(type))));
}

std::string trainer(uint64_t model_type = 2) {
  return text_field(2, number_field(3, model_type) + number_field(35, 1));
}

std::string normalizer(std::string_view table = "", bool removes_spaces = false) {
  return text_field(3, text_field(1, "identity") + text_field(2, table) +
                           number_field(4, removes_spaces ? 1 : 0));
}

// 0-2 are control tokens, 3 a byte, 4-9 pieces, 10 the user's.
std::string pieces() {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("<0x0A>", 0, 6) +
         piece("▁a", -1) + piece("ab", 0) + piece("▁", -3) + piece("a", -4) + piece("b", -5) +
         piece("▁ab", -2) + piece("b!", 0, 4);
}

class TokenizerFilesTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::shared_ptr<const Tokenizer> load(std::string_view name, std::string_view bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;  // not durably, as it is often done
    return Tokenizer::load(folder_);
  }

  std::string refusal(std::string_view name, std::string_view bytes) const {
    try {
      load(name, bytes);
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  }

  // Every beginning, and random damage: it loads and is used, or is refused.
  void expect_no_harm(std::string_view name, std::string_view whole) const {
    const RandomStream random(12, 0, name);
    uint64_t draw = 0;
    const auto below = [&](size_t n) { return static_cast<size_t>(random.uniform(draw++) * n); };
    for (size_t i = 0; i < 500 + whole.size(); ++i) {
      std::string bytes(whole.substr(0, std::min(i, whole.size())));
      for (size_t n = i < whole.size() ? 0 : 1 + below(3); n > 0; --n)
        bytes[below(bytes.size())] = static_cast<char>(below(256));
      try {
        const auto tokenizer = load(name, bytes);
        tokenizer->decode(tokenizer->encode("<s> abc b! cab\n中"));
      } catch (const InputError&) {
      }
    }
  }

  fs::path folder_ =
      fs::temp_directory_path() / ("moetron_tokenizer_files_" + std::to_string(::getpid()));
};

TEST_F(TokenizerFilesTest, TiktokenMergesByRank) {
  const auto tokenizer = load("qwen.tiktoken", kRanks);
  EXPECT_EQ(tokenizer->encode("abc ab"), (Ids{7, 6}));
  EXPECT_EQ(tokenizer->encode("bccb bcab"), (Ids{9, 1, 3, 5, 4}));
  EXPECT_EQ(tokenizer->encode("c<|im_start|>a<|extra_204|>"), (Ids{2, 151644, 0, 151850}));
  EXPECT_EQ(tokenizer->vocab_size(), 151851);
  EXPECT_EQ(tokenizer->eos_id(), 151643);
  EXPECT_EQ(tokenizer->decode(Ids{7, 6, 8, 10, 151644}), "abc ab\uFFFD<|im_start|>");
}

TEST_F(TokenizerFilesTest, TiktokenTakesTheConfigsTokens) {
  write_file(folder_ / "tokenizer_config.json",
             R"({"added_tokens_decoder": {"70": {"content": "<x>", "special": true},
                 "60": {"content": "[BOS]", "special": true}}, "bos_token": "[BOS]",
                 "add_bos_token": true, "eos_token": "<x>"})");
  const auto tokenizer = load("tiktoken.model", kRanks);
  EXPECT_EQ(tokenizer->encode("a<x>", true), (Ids{60, 0, 70}));
  EXPECT_EQ(tokenizer->eos_id(), 70);
}

TEST_F(TokenizerFilesTest, TiktokenRefusals) {
  EXPECT_NE(refusal("own.tiktoken", kRanks).find("does not say how text is cut"),
            std::string::npos);
  EXPECT_NE(refusal("qwen.tiktoken", "").find("holds 2 files"), std::string::npos);
  fs::remove(folder_ / "own.tiktoken");
  const std::vector<std::array<std::string, 2>> cases{
      {"", "is empty"},
      {"YQ== 0\nYg==", "line 2 is not a token in base 64"},
      {"YQ== 0\nYg= 1", "line 2 is not a token"},
      {"YQ== 0\nY*== 1", "line 2 is not a token"},
      {"YQ== -1", "line 1 is not a token"},
      {"YQ== 2097152", "line 1 is not a token"},
      {"YQ== 0\nYQ== 1", "line 2 has a token that an earlier line has"},
      {"YQ== 0\nYg== 0", "line 2 has the rank 0 of an earlier line"},
      {"YQ== 151643", "the id 151643 is given to the added token \"<|endoftext|>\""}};
  for (const auto& [text, cause] : cases)
    EXPECT_NE(refusal("qwen.tiktoken", text).find(cause), std::string::npos)
        << refusal("qwen.tiktoken", text);
  expect_no_harm("qwen.tiktoken", kRanks);
}

TEST_F(TokenizerFilesTest, SentencePieceMergesByScore) {
  const auto tokenizer = load("tokenizer.model", pieces() + trainer() + normalizer());
  EXPECT_EQ(tokenizer->encode("ab  aab\n"), (Ids{9, 6, 4, 5, 3}));
  EXPECT_EQ(tokenizer->encode("a</s>中文!"), (Ids{4, 2, 6, 0}));
  EXPECT_EQ(tokenizer->encode("ab!b"), (Ids{4, 10, 8}));
  EXPECT_EQ(tokenizer->decode(Ids{1, 6, 5, 6, 10, 3}), "<s> ab b!\n");
  EXPECT_EQ(tokenizer->decode(Ids{1, 6, 5, 6, 10, 3}, true), "ab b!\n");
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  const auto stripped = load("tokenizer.model", pieces() + trainer() + normalizer("", true));
  EXPECT_EQ(stripped->encode("  ab   a  "), (Ids{9, 4}));
}

TEST_F(TokenizerFilesTest, SentencePieceRefusals) {
  const std::string whole = pieces() + trainer() + normalizer();
  const std::vector<std::array<std::string, 2>> cases{
      {pieces() + normalizer(), "of the type 1; Moetron reads those of BPE (2)"},
      {pieces() + trainer(4) + normalizer(), "of the type 4"},
      {pieces() + trainer() + normalizer("x"), "a table of its own (identity)"},
      {trainer(), "has no pieces"},
      {whole + piece("a", -9), "the piece \"a\" is there twice"},
      {whole + piece("aa", -2), "the pieces \"▁ab\" and \"aa\" have one score, -2"},
      {whole + piece("bc", -9), "names the token \"c\""},
      {whole + piece("\xFF", -9), "a piece that is not UTF-8"},
      {whole + piece("bb", -9, 5), "has pieces that are not used"},
      {whole + piece("bb", -9, 7), "a piece of an unknown type"},
      {whole + piece("bb", -1.0F / 0.0F), "a score that is not finite"},
      {whole + text_field(1, number_field(1, 3)), "a field of another type"},
      {whole + "\x0B", "a field of an unknown kind"},
      {whole + std::string(11, '\xFF'), "a number that is too long"},
      {whole + "\x0A\x7F", "ends within a field"}};
  for (const auto& [bytes, cause] : cases)
    EXPECT_NE(refusal("tokenizer.model", bytes).find(cause), std::string::npos)
        << refusal("tokenizer.model", bytes);
  expect_no_harm("tokenizer.model", whole);
}

}  // namespace
}  // namespace moetron
