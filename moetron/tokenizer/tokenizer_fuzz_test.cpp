// Damaged tokenizer files: whatever the bytes, loading works or throws InputError.
#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSeed = R"json({"version":"1.0","truncation":null,"padding":null,
"added_tokens":[{"id":9,"content":"<s>","single_word":false,"lstrip":true,"rstrip":false,
"normalized":true,"special":true},
{"id":10,"content":"e\u0301","single_word":true,"rstrip":true,"normalized":false,"special":false}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[
{"type":"Split","pattern":{"Regex":"\\p{N}{1,3}|[^\\s\\w]+(?=x)"},"behavior":"Isolated"},
{"type":"Split","pattern":{"String":"--"},"behavior":"Removed","invert":false},
{"type":"Digits","individual_digits":true},
{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}]},
"post_processor":{"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing",
"single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
"special_tokens":{"<s>":{"id":"<s>","ids":[9],"tokens":["<s>"]}}}]},
"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"",
"end_of_word_suffix":"","fuse_unk":false,"byte_fallback":false,"ignore_merges":true,
"vocab":{"a":0,"b":1,"c":2,"\u0120":3,"ab":4,"abc":5,"\u0120ab":6,"\u00c3":7,"\u00a9":8},
"merges":["a b",["ab","c"],"\u0120 ab"]}})json";

// All that the first does not have.
constexpr std::string_view kMarkedSeed = R"json({"added_tokens":[
{"id":9,"content":"<s>","normalized":true,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFKD"},{"type":"Lowercase"},
{"type":"Strip","strip_left":true,"strip_right":false},{"type":"Prepend","prepend":"_"},
{"type":"Replace","pattern":{"Regex":"[^\\w&&[a-f]]{1,2}+|(?i:k(?=\\b))"},"content":"_"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[
{"type":"Split","pattern":{"Regex":"\\x{4e00}+|(?<![a-c])x$"},"behavior":"MergedWithNext","invert":true},
{"type":"Punctuation","behavior":"Contiguous"},{"type":"FixedLength","length":7},
{"type":"ByteLevel"},{"type":"Whitespace"},
{"type":"Metaspace","replacement":"_","prepend_scheme":"first","split":true}]},
"post_processor":{"type":"RobertaProcessing","sep":["a",0],"cls":["b",1]},
"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"},
{"type":"Replace","pattern":{"String":"_"},"content":" "},{"type":"BPEDecoder","suffix":"</w>"},
{"type":"Strip","content":" ","start":1,"stop":2},{"type":"Metaspace","replacement":"_"}]},
"model":{"type":"BPE","unk_token":"c","continuing_subword_prefix":"#","end_of_word_suffix":"/",
"fuse_unk":true,"byte_fallback":true,"vocab":{"a":0,"b":1,"c":2,"#b":3,"ab":4,"#/":5,"<0x61>":6,
"<0x23>":7,"#a/":8},"merges":["a #b"]}})json";

class TokenizerFuzzTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  // True if the file loads; then it is used too.
  bool works(std::string_view text) {
    std::ofstream(path_, std::ios::binary) << text;
    try {
      const auto tokenizer = Tokenizer::load(path_);
      const auto ids = tokenizer->encode("<s> abc--12 e\xCC\x81 \xC3\xA9\xFFx!?x \n", true);
      tokenizer->decode(ids, true);
      return true;
    } catch (const InputError&) {
      return false;
    }
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_fuzz_" + std::to_string(::getpid()));
  fs::path path_ = folder_ / "tokenizer.json";
};

TEST_F(TokenizerFuzzTest, EveryTruncationIsRefused) {
  ASSERT_TRUE(works(kSeed));
  ASSERT_TRUE(works(kMarkedSeed));
  for (size_t size = 0; size < kSeed.size(); ++size) {
    ASSERT_FALSE(works(kSeed.substr(0, size))) << size;
  }
}

TEST_F(TokenizerFuzzTest, MutationsAreRefusedOrWork) {
  constexpr std::array<std::string_view, 24> kSplices{
      "\"",   "{",  "}",          "[",          "]",  ",",       ":",       "null",
      "true", "-1", "4294967296", "1e999",      "\\", "\\u0000", "\\ud800", "\xFF",
      "\"\"", "[]", "{}",         "2147483647", "(",  "*",       "|",       "\\\\p{"};
  const RandomStream random(11, 0, "tokenizer fuzz");
  uint64_t draw = 0;
  const auto below = [&](size_t n) { return static_cast<size_t>(random.uniform(draw++) * n); };
  int num_working = 0;
  int num_refused = 0;
  for (int i = 0; i < 500; ++i) {
    std::string text(below(2) == 0 ? kSeed : kMarkedSeed);
    for (size_t n = 1 + below(3); n > 0; --n) {
      const size_t place = below(text.size());
      const size_t length = std::min(below(12), text.size() - place);
      switch (below(4)) {
        case 0:
          text[place] = static_cast<char>(below(256));
          break;
        case 1:
          text.replace(place, length, kSplices[below(kSplices.size())]);
          break;
        case 2:
          text.erase(place, length);
          break;
        default:  // a part of the file again, elsewhere
          text.insert(place, text.substr(below(text.size()), below(80)));
      }
    }
    (works(text) ? num_working : num_refused) += 1;
  }
  EXPECT_GT(num_working, 0);
  EXPECT_GT(num_refused, 100);
}

TEST_F(TokenizerFuzzTest, DeepNestingIsRefused) {
  EXPECT_FALSE(works(std::string(100'000, '[')));
  std::string nested;
  for (int i = 0; i < 2000; ++i) nested += R"({"type":"Sequence","normalizers":[)";
  std::string text(kSeed);
  text.replace(text.find(R"({"type":"Sequence","normalizers")"), 1, nested + "{");
  EXPECT_FALSE(works(text));
}

}  // namespace
}  // namespace moetron
