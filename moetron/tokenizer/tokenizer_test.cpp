#include "moetron/tokenizer/tokenizer.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

const fs::path kData = "../shared/data/tokenizers";

// A byte-level tokenizer of few tokens; a test replaces parts of it by text.
constexpr std::string_view kSmall = R"({
  "added_tokens": [
    {"id": 8, "content": "<s>", "special": true},
    {"id": 9, "content": "<mask>", "lstrip": true, "rstrip": true, "normalized": false},
    {"id": 10, "content": "cab", "single_word": true, "normalized": false}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}}},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "ignore_merges": false,
    "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "abc": 5, "bc": 6, "Ġab": 7},
    "merges": ["a b", ["b", "c"], "ab c", "Ġ ab"]}})";

// Of Llama-2's kind: over characters, a mark for each space, bytes of what is unknown.
constexpr std::string_view kMarked = R"({
  "added_tokens": [{"id": 0, "content": "<s>", "special": true, "normalized": false}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "pre_tokenizer": null,
  "post_processor": null,
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "fuse_unk": true,
    "vocab": {"<s>": 0, "<unk>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5, "▁ab": 6, "▁▁": 7, "é": 8,
      "<0xC3>": 9, "<0xBC>": 10, "<0x0A>": 11},
    "merges": ["▁ a", "▁a b", "▁ ▁"]}})";

class TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::shared_ptr<const Tokenizer> load(std::string text, std::string_view config = "") {
    write_file(folder_ / "tokenizer.json", text);
    if (!config.empty()) write_file(folder_ / "tokenizer_config.json", config);
    return Tokenizer::load(folder_);
  }
  static std::string replaced(std::string_view from, std::string_view to) {
    std::string text(kSmall);
    const size_t place = text.find(from);
    EXPECT_NE(place, std::string::npos) << from;
    return text.replace(place, from.size(), to);
  }

  fs::path folder_ =
      fs::temp_directory_path() / ("moetron_tokenizer_" + std::to_string(::getpid()));
};

TEST_F(TokenizerTest, BytesAreThemselves) {
  const auto tokenizer = Tokenizer::bytes();
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->eos_id(), 256);
  EXPECT_EQ(tokenizer->encode("a\xFF"), (Ids{97, 255}));
  EXPECT_EQ(tokenizer->decode(Ids{104, 105, 256}), "hi<|endoftext|>");
  EXPECT_EQ(tokenizer->decode(Ids{104, 105, 256}, true), "hi");
  EXPECT_EQ(tokenizer->decode(Ids{255}), "\xEF\xBF\xBD");
}

TEST_F(TokenizerTest, MergesByRankAndLeftmostFirst) {
  const auto tokenizer = load(std::string(kSmall));
  EXPECT_EQ(tokenizer->vocab_size(), 11);
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{5}));
  EXPECT_EQ(tokenizer->encode("bbc ab"), (Ids{1, 6, 7}));
  EXPECT_EQ(tokenizer->encode("axb"), (Ids{4}));  // x has no token: dropped before the merges
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  std::string text;
  Ids expected;
  for (int i = 0; i < 1000; ++i) {  // too long to be merged by scanning
    text += "abcc";
    expected.insert(expected.end(), {5, 2});
  }
  EXPECT_EQ(tokenizer->encode(text), expected);
  EXPECT_EQ(tokenizer->decode(expected), text);
}

TEST_F(TokenizerTest, AddedAndSpecialTokens) {
  const auto tokenizer = load(std::string(kSmall));
  EXPECT_EQ(tokenizer->encode("a<s>b", true), (Ids{8, 0, 8, 1}));
  EXPECT_EQ(tokenizer->encode("a  <mask>\n b"), (Ids{0, 9, 1}));
  EXPECT_EQ(tokenizer->encode("a cab b cabb"), (Ids{0, 3, 10, 3, 1, 3, 2, 4, 1}));
  EXPECT_EQ(tokenizer->decode(Ids{8, 0, 9, 7, 77, -1}), "<s>a<mask> ab");
  EXPECT_EQ(tokenizer->decode(Ids{8, 0, 9}, true), "a<mask>");
  EXPECT_EQ(tokenizer->eos_id(), std::nullopt);
}

TEST_F(TokenizerTest, PiecesHavePlacesAndPlainOnesNoAddedTokens) {
  const auto tokenizer = load(std::string(kSmall));
  const std::string text = "abc cab a";
  const std::vector<TextPiece> whole = {{text.size(), false}};
  const PlacedTokens tokens = tokenizer->encode_pieces(text, whole);
  EXPECT_EQ(tokens.ids, (Ids{5, 3, 10, 3, 0}));
  EXPECT_EQ(tokens.ids, tokenizer->encode(text));
  EXPECT_EQ(tokens.ends, (std::vector<size_t>{3, 4, 7, 8, 9}));
  const std::vector<TextPiece> plain = {{4, false}, {7, true}, {text.size(), false}};
  const PlacedTokens cut = tokenizer->encode_pieces(text, plain);
  EXPECT_EQ(cut.ids, (Ids{5, 3, 2, 4, 3, 0}));
  EXPECT_EQ(cut.ends, (std::vector<size_t>{3, 4, 5, 7, 8, 9}));
  EXPECT_EQ(tokenizer->added_tokens().size(), 3);
}

// What a normalizer composes keeps its place in the text as it was.
TEST_F(TokenizerTest, PlacesAreThoseBeforeNormalisation) {
  if (!fs::exists(kData / "qwen3" / "tokenizer.json")) GTEST_SKIP() << "no " << kData;
  const auto tokenizer = Tokenizer::load(kData / "qwen3");
  const std::string text = "e\u0301 <|im_end|>x";  // 3 bytes become 2
  const std::vector<TextPiece> whole = {{text.size(), false}};
  const PlacedTokens tokens = tokenizer->encode_pieces(text, whole);
  EXPECT_EQ(tokens.ids, tokenizer->encode(text));
  EXPECT_EQ(tokens.ends, (std::vector<size_t>{3, 4, 14, 15}));
}

TEST_F(TokenizerTest, CharactersMarksAndBytes) {
  const auto tokenizer = load(std::string(kMarked));
  EXPECT_EQ(tokenizer->encode("ab  ab\n"), (Ids{6, 2, 6, 11}));  // no merge crosses a mark
  EXPECT_EQ(tokenizer->encode("a ü中文é"), (Ids{5, 2, 9, 10, 1, 8}));
  EXPECT_EQ(tokenizer->encode("<s>a<s>"), (Ids{0, 5, 0}));
  EXPECT_EQ(tokenizer->encode("    "), (Ids{7, 7, 2}));
  EXPECT_EQ(tokenizer->decode(Ids{6, 2, 6, 9, 10, 9}), "ab  ab\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(tokenizer->decode(Ids{0, 5, 9, 10}, true), "aü");
  std::string text = "a";
  for (int i = 0; i < 300'000; ++i) text += " ab";
  const Ids ids = tokenizer->encode(text);
  EXPECT_EQ(ids.size(), 300'001U);
  EXPECT_EQ(tokenizer->decode(ids), text);
}

TEST_F(TokenizerTest, PlacesOfCharactersMarksAndBytes) {
  const auto tokenizer = load(std::string(kMarked));
  const std::string text = "ab ü中文é<s> b";
  const std::vector<TextPiece> whole = {{text.size(), false}};
  const PlacedTokens tokens = tokenizer->encode_pieces(text, whole);
  EXPECT_EQ(tokens.ids, (Ids{6, 2, 9, 10, 1, 8, 0, 7, 4}));
  EXPECT_EQ(tokens.ids, tokenizer->encode(text));
  EXPECT_EQ(tokens.ends, (std::vector<size_t>{2, 3, 4, 5, 11, 13, 16, 17, 18}));
}

// Nothing is put in front of text that continues other text.
TEST_F(TokenizerTest, PlainPiecesContinueTheText) {
  const auto tokenizer = load(std::string(kMarked));
  const std::string text = "a<s>b ab";
  const std::vector<TextPiece> pieces = {{1, false}, {4, true}, {text.size(), false}};
  const PlacedTokens tokens = tokenizer->encode_pieces(text, pieces);
  EXPECT_EQ(tokens.ids, (Ids{5, 1, 4, 6}));  // <s> is unknown here
  EXPECT_EQ(tokens.ends, (std::vector<size_t>{1, 4, 5, 8}));
  EXPECT_EQ(tokenizer->encode(text), (Ids{5, 0, 2, 4, 6}));
}

// The first piece alone gets a mark; what is stripped, replaced and put in front has its places.
TEST_F(TokenizerTest, PlacesOfWhatIsRewritten) {
  std::string text(kMarked);
  const size_t begin = text.find("\"normalizer\"");
  text.replace(begin, text.find("\"post_processor\"") - begin,
               R"("normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Removed", "invert": false},
      {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}]},)");
  const auto tokenizer = load(text);
  const std::string source = "AB bXb a<s>a";
  const std::vector<TextPiece> pieces = {{6, false}, {source.size(), false}};
  const PlacedTokens tokens = tokenizer->encode_pieces(source, pieces);
  EXPECT_EQ(tokens.ids, (Ids{6, 2, 4, 4, 5, 0, 3}));
  EXPECT_EQ(tokens.ids, tokenizer->encode(source));
  EXPECT_EQ(tokens.ends, (std::vector<size_t>{2, 3, 4, 6, 8, 11, 12}));
}

TEST_F(TokenizerTest, AddedTokensAreFoundInLinearTime) {
  const std::string run(20000, 'a');
  const auto tokenizer = load(std::string(kSmall), R"({"extra_special_tokens": [")" + run +
                                                       R"(b", "aab", "cc", "bccb", "ccbca"]})");
  const std::string text(1000000, 'a');
  EXPECT_EQ(tokenizer->encode(text), Ids(text.size(), 0));
  EXPECT_EQ(tokenizer->encode(text.substr(0, 30000) + "b").size(), 10001u);  // the long one ends it
  // The leftmost wins, then the longest; what was read ahead counts again.
  EXPECT_EQ(tokenizer->encode("aaab"), (Ids{0, 12}));
  EXPECT_EQ(tokenizer->encode("bccbcab"), (Ids{14, 2, 4}));
  EXPECT_EQ(tokenizer->encode("ccbcab"), (Ids{15, 1}));
  EXPECT_EQ(tokenizer->encode("ccbcb"), (Ids{13, 6, 1}));
  EXPECT_EQ(tokenizer->encode("bccccb"), (Ids{1, 13, 13, 1}));
}

// Each of these took minutes or hours where time grew with the square of the length.
TEST_F(TokenizerTest, LongWordsTakeLinearTime) {
  const auto tokenizer = load(std::string(kSmall));  // all of a text is one word
  const auto repeated = [](std::string_view part, size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += part;
    return text;
  };
  EXPECT_EQ(tokenizer->encode(repeated("a", 4000000)), Ids(4000000, 0));
  EXPECT_EQ(tokenizer->encode(repeated("abc", 2000000)), Ids(2000000, 5));
  Ids expected{5, 7};  // at the end of a part, what a merge takes lies on both sides
  for (int i = 1; i < 300000; ++i) expected.insert(expected.end(), {6, 7});
  EXPECT_EQ(tokenizer->encode("a" + repeated("bc ab", 300000)), expected);
}

// Long words are merged in parts; wherever these end, the tokens are those of the word merged as a
// whole, which short parts of the same text show: at a byte that no token spans, a word may be cut.
TEST_F(TokenizerTest, PartsOfLongWordsMeet) {
  const auto tokenizer = load(R"({"added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    "model": {"type": "BPE",
      "vocab": {"a": 0, "b": 1, "c": 2, "x": 3, "aa": 4, "aaaa": 5, "ca": 6, "ab": 7, "bca": 8, "abbca": 9},
      "merges": ["a a", "aa aa", "c a", "a b", "b ca", "ab bca"]}})");
  for (int seed = 1; seed < 40; ++seed) {
    std::string text;
    Ids expected;
    uint32_t state = static_cast<uint32_t>(seed);
    for (int word = 0; word < 60; ++word) {
      std::string part;
      for (uint32_t i = state >> 8 & 63; i > 0; --i) {
        state = state * 1664525 + 1013904223;
        part += "abc"[(state >> 20) % 3];
      }
      state = state * 1664525 + 1013904223;
      part += 'x';
      const Ids ids = tokenizer->encode(part);  // scanned
      expected.insert(expected.end(), ids.begin(), ids.end());
      text += part;
    }
    ASSERT_EQ(tokenizer->encode(text), expected) << seed;
    ASSERT_EQ(tokenizer->decode(expected), text);
  }
}

TEST_F(TokenizerTest, IgnoreMergesTakesWholePieces) {
  const std::string text = replaced(R"("ab c", "Ġ ab")", R"("Ġ ab")");
  EXPECT_EQ(load(text)->encode("abc"), (Ids{4, 2}));
  std::string ignoring = text;
  ignoring.replace(ignoring.find("\"ignore_merges\": false"), 22, "\"ignore_merges\": true ");
  EXPECT_EQ(load(ignoring)->encode("abc"), (Ids{5}));
}

TEST_F(TokenizerTest, ConfigNamesBeginAndEnd) {
  const auto tokenizer = load(std::string(kSmall), R"({"bos_token": {"content": "abc"},
      "eos_token": "<s>", "add_bos_token": true, "add_eos_token": true})");
  EXPECT_EQ(tokenizer->bos_id(), 5);
  EXPECT_EQ(tokenizer->eos_id(), 8);
  // What is added is the post-processor's to say.
  EXPECT_EQ(tokenizer->encode("b", true), (Ids{8, 1}));
  EXPECT_EQ(tokenizer->encode("b"), (Ids{1}));
  for (const char* config :
       {R"({"eos_token": 7})", R"([1])", "{", R"({"extra_special_tokens": "<x>"})",
        R"({"extra_special_tokens": [3]})", R"({"split_special_tokens": true})",
        R"({"added_tokens_decoder": {"x": {"content": "<x>"}}})",
        R"({"added_tokens_decoder": {"12": {"content": "<x>"}}})",  // the next is 11
        R"({"added_tokens_decoder": {"9": {"content": "<s>"}}})",
        R"({"pad_token": {"content": "<x>", "lstrip": 1}})"}) {
    EXPECT_THROW(load(std::string(kSmall), config), InputError) << config;
  }
}

TEST_F(TokenizerTest, ConfigAddsTokens) {
  const auto tokenizer = load(std::string(kSmall), R"({"pad_token": "<pad>",
      "extra_special_tokens": ["<x>", "b"], "eos_token": "</s>"})");
  EXPECT_EQ(tokenizer->vocab_size(), 14);
  EXPECT_EQ(tokenizer->eos_id(), 11);
  EXPECT_EQ(tokenizer->encode("a<x>a<pad>a</s>"), (Ids{0, 13, 0, 12, 0, 11}));
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{0, 1, 2}));  // b is cut out now
  EXPECT_EQ(tokenizer->decode(Ids{0, 13, 1, 2}, true), "ac");
}

TEST_F(TokenizerTest, ErrorsNameFileAndCause) {
  const std::vector<std::array<std::string, 3>> cases{
      {R"("type": "BPE")", R"("type": "Unigram")", "model is of type Unigram; Moetron reads BPE"},
      {R"("type": "BPE")", R"("type": "WordPiece")", "model is of type WordPiece"},
      {R"("c": 2)", R"("c": 99999999999)", "\"c\" an id that is not an integer below 2097152"},
      {R"("c": 2)", R"("c": 2097152)", "\"c\" an id that is not an integer below 2097152"},
      {R"("c": 2)", R"("c": -2)", "\"c\" an id that is not an integer"},
      {R"("c": 2)", R"("c": 2.5)", "\"c\" an id that is not an integer"},
      {R"("c": 2)", R"("c": 1)", "gives the id 1 to two tokens, one of them \"c\""},
      {R"("c": 2)", R"("b": 2)", "vocab holds \"b\" twice"},
      {R"("a b")", R"("a z")", "merge 0 names the token \"z\", which is not in the vocabulary"},
      {R"("a b")", R"("c b")", "merge 0 names the token \"cb\""},
      {R"("a b")", R"("a b c")", "merges holds as number 0 neither"},
      {R"("a b")", R"(["a"])", "merges holds as number 0 neither"},
      {R"("a b")", "7", "merges holds as number 0 neither"},
      {R"("id": 9)", R"("id": 12)", "\"<mask>\" has the id 12 but should have 9"},
      {R"("ids": [8])", R"("ids": [800])", "post_processor adds the id 800"},
      {R"("normalizer": null)", R"("normalizer": {"type": "Nmt"})", "normalizer is of type Nmt"},
      {R"({"type": "ByteLevel", "add)", R"({"type": "UnicodeScripts", "add)",
       "is of type UnicodeScripts"},
      {R"({"type": "ByteLevel", "add)", R"({"type": "Metaspace", "replacement": "__", "add)",
       "replacement (\"__\") is not one character"},
      {R"("ignore_merges")", R"("byte_fallback": 1, "x")", "byte_fallback is not true or false"},
      {R"("ignore_merges")", R"("dropout": 0.1, "x")", "dropout is not supported"},
      {R"("ignore_merges")", R"("unk_token": "z", "x")", "unk_token names the token \"z\""},
      {R"("ignore_merges")", R"("continuing_subword_prefix": "##", "x")",
       "merge 0 has \"b\", which is shorter than the prefix \"##\""},
      {R"("merges": [)", R"("end_of_word_suffix": "</w>", "merges": ["x y", )",
       "merge 0 names the token \"x\""},
      {R"({"type": "ByteLevel"})", R"({"type": "WordPiece"})", "decoder is of type WordPiece"},
      {R"("model")", R"("modell")", "tokenizer.json: has no \"model\""},
      {std::string(kSmall), "[1, 2]", "tokenizer.json: is not an object"},
      {std::string(kSmall), "", "tokenizer.json is empty"},
      {std::string(kSmall), "{", "is not JSON"}};
  for (const auto& [from, to, cause] : cases) {
    try {
      load(replaced(from, to));
      ADD_FAILURE() << "accepted: " << to;
    } catch (const InputError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find((folder_ / "tokenizer.json").string()), std::string::npos) << message;
      EXPECT_NE(message.find(cause), std::string::npos) << message;
    }
  }
  EXPECT_THROW(Tokenizer::load(folder_ / "absent"), InputError);
}

TEST_F(TokenizerTest, ThreadsShareOneTokenizer) {
  const auto tokenizer = load(std::string(kSmall));
  const Ids expected = tokenizer->encode("abc bab cab <s>ab");
  std::vector<std::thread> threads;
  std::vector<int> num_equal(4);
  for (int& count : num_equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) count += tokenizer->encode("abc bab cab <s>ab") == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_equal, std::vector<int>(4, 500));
}

// More words than the cache's first tables hold, short and long, met by all threads in other
// orders.
TEST_F(TokenizerTest, ThreadsFillOneCache) {
  const auto texts_from = [](uint32_t state, int count) {
    std::vector<std::string> texts;
    for (int i = 0; i < count; ++i) {
      std::string& text = texts.emplace_back();
      for (uint32_t size = state >> 8 & 31; text.size() <= size;) {
        state = state * 1664525 + 1013904223;
        text += "abc"[(state >> 20) % 3];
      }
    }
    return texts;
  };
  const auto texts = texts_from(1, 40000);
  const auto alone = load(std::string(kSmall));
  std::vector<Ids> expected;
  for (const std::string& text : texts) expected.push_back(alone->encode(text));
  const auto tokenizer = load(std::string(kSmall));
  std::vector<std::thread> threads;
  std::vector<size_t> num_equal(4);
  for (size_t thread = 0; thread < num_equal.size(); ++thread) {
    threads.emplace_back([&, thread] {
      for (size_t i = 0; i < 2 * texts.size(); ++i) {
        const size_t k = (i * 7 + thread * 10001) % texts.size();
        num_equal[thread] += tokenizer->encode(texts[k]) == expected[k];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_equal, std::vector<size_t>(4, 2 * texts.size()));
}

// Texts and ids of the Hugging Face tokenizers, as llama.cpp keeps them for its own tests.
void expect_vectors(const fs::path& tokenizer_folder, const std::string& vectors) {
  if (!fs::exists(kData)) GTEST_SKIP() << kData << " does not exist";
  const auto tokenizer = Tokenizer::load(kData / tokenizer_folder);
  const std::string texts =
      read_file(kData / "llama.cpp-vectors" / ("ggml-vocab-" + vectors + ".gguf.inp"));
  std::ifstream results(kData / "llama.cpp-vectors" / ("ggml-vocab-" + vectors + ".gguf.out"));
  constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  int num_texts = 0;
  for (size_t begin = 0; begin < texts.size(); ++num_texts) {
    const size_t end = std::min(texts.find(kBetween, begin), texts.size());
    const std::string text = texts.substr(begin, end - begin);
    std::string line;
    ASSERT_TRUE(std::getline(results, line));
    std::istringstream numbers(line);
    const Ids expected{std::istream_iterator<int32_t>(numbers), {}};
    EXPECT_EQ(tokenizer->encode(text), expected) << text;
    begin = end + kBetween.size();
  }
  EXPECT_EQ(num_texts, 46);
}

TEST_F(TokenizerTest, VectorsOfQwen2) {
  expect_vectors("qwen3", "qwen2");
}
TEST_F(TokenizerTest, VectorsOfGpt2) {
  expect_vectors("gpt2", "gpt-2");
}

TEST_F(TokenizerTest, VectorsOfDeepSeekV3) {
  if (!fs::exists(kData)) GTEST_SKIP() << kData << " does not exist";
  const auto tokenizer = Tokenizer::load(kData / "deepseek-v3");
  EXPECT_EQ(tokenizer->vocab_size(), 128815);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_EQ(tokenizer->encode(" hello world "), (Ids{44388, 2058, 223}));
  EXPECT_EQ(tokenizer->encode("Hello 你好 World 世界!"),
            (Ids{19923, 223, 30594, 4495, 223, 3427, 3}));
  EXPECT_EQ(tokenizer->encode("Hello 🌍 World!"), (Ids{19923, 73369, 238, 4495, 3}));
  EXPECT_EQ(tokenizer->encode("Hello! 毕老师！1 + 1 = 2 ĠÑĤÐ²ÑĬÑĢ"),
            (Ids{19923, 3,   223,   5464, 5008, 1175,  19,   940,   223, 19,  438,   223, 20,
                 6113,  257, 76589, 131,  100,  76032, 1628, 76589, 131, 108, 76589, 131, 98}));
}

}  // namespace
}  // namespace moetron
