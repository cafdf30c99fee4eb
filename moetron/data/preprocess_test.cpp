#include "moetron/data/preprocess.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/formats/damage_test.h"
#include "moetron/formats/indexed_dataset.h"
#include "moetron/formats/read_sequence_test.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A token a byte; 256 ends a document.
TextEncoder byte_encoder() {
  return {[](std::string_view text) {
            std::vector<int32_t> tokens;
            for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
            return tokens;
          },
          257, 256};
}

class PreprocessTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_ / "in"); }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path input(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / "in" / name).parent_path());
    std::ofstream(folder_ / "in" / name, std::ios::binary) << text;
    return folder_ / "in" / name;
  }
  PreprocessSettings settings(std::vector<fs::path> inputs) {
    return {.inputs = std::move(inputs), .output_prefix = (folder_ / "out").string()};
  }
  // Documents written for a key, as text; the end token shows as '$'.
  std::vector<std::string> documents(const std::string& key = "text") {
    const IndexedDataset dataset((folder_ / ("out_" + key + "_document")).string());
    std::vector<std::string> texts;
    for (int64_t d = 0; d < dataset.num_documents(); ++d) {
      std::string text;
      for (int64_t s = dataset.document_start(d); s < dataset.document_start(d + 1); ++s)
        for (const int32_t token : read_sequence(dataset, s))
          text += token == 256 ? '$' : char(token);
      texts.push_back(text);
    }
    return texts;
  }
  std::string why_refused(const PreprocessSettings& wanted) {
    try {
      preprocess(wanted, byte_encoder());
    } catch (const InputError& error) {
      EXPECT_EQ(num_outputs(), 0) << "half a result was left";
      return error.what();
    }
    return "accepted";
  }
  int num_outputs() const {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(folder_)) files += entry.is_regular_file();
    return files;
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_pre_" + std::to_string(::getpid()));
};

TEST_F(PreprocessTest, JoinsTheKeysOfARecord) {
  PreprocessSettings wanted = settings({input("b.jsonl", R"({"title": "t"})")});
  wanted.keys = {"title", "content"};
  wanted.joined_key = "text";
  EXPECT_THAT(why_refused(wanted), HasSubstr("content"));
  wanted.inputs = {input("a.json", R"([
      {"title": "t", "content": "c", "id": 1}, {"title": "", "content": "c"},
      {"title": "t", "content": ""}, {"title": "", "content": ""}])")};
  const PreprocessReport report = preprocess(wanted, byte_encoder());
  EXPECT_THAT(documents(), ElementsAre("t\nc", "c", "t", ""));
  EXPECT_EQ(report.documents, 4);
  EXPECT_EQ(report.outputs.size(), 1u);
}

TEST_F(PreprocessTest, CleansAndLeavesOutWhatIsNoText) {
  PreprocessSettings wanted = settings({input("b.jsonl", "{\"q\": \" \"}")});
  wanted.keys = {"q"};
  wanted.append_eod = true;
  wanted.clean = true;
  EXPECT_THAT(why_refused(wanted), HasSubstr("no documents (0 bad lines, 1 cleaned away"));
  wanted.inputs = {input("a.jsonl",
                         "{\"q\": \" http://x  a\", \"a\": \"\\u0007b\"}\n"
                         "{\"q\": \"\\u200b\", \"a\": \" \"}\n"
                         "{\"q\": \"\", \"a\": \"\"}\n"
                         "{\"q\": \" \", \"a\": \"c\"}\n")};
  wanted.keys = {"q", "a"};
  const PreprocessReport report = preprocess(wanted, byte_encoder());
  EXPECT_THAT(documents("q"), ElementsAre("a$", "", ""));
  EXPECT_THAT(documents("a"), ElementsAre("b$", "", "c$"));
  EXPECT_EQ(report.documents, 3);
  EXPECT_EQ(report.cleaned_away, 1);
}

TEST_F(PreprocessTest, ReadsLinesWithTheirOddities) {
  const fs::path path = input("a.jsonl",
                              "\xef\xbb\xbf{\"text\": \"one\"}\r\n"
                              "\n  \r\n"
                              "{\"text\": \"\\u00e9\\u0000\\ud83d\\ude00\", \"id\": 3}\n"
                              "{\"text\": \"\"}\n"
                              "{\"text\": \"last\\r\\n\"}");
  PreprocessSettings wanted = settings({path});
  wanted.append_eod = true;
  const PreprocessReport report = preprocess(wanted, byte_encoder());
  EXPECT_THAT(documents(),
              ElementsAre("one$", std::string("\xc3\xa9\0\xf0\x9f\x98\x80$", 8), "", "last\r\n$"));
  EXPECT_EQ(report.documents, 4);
  EXPECT_EQ(report.empty_documents, 1);
  EXPECT_EQ(report.tokens, 4 + 8 + 7);
  EXPECT_EQ(report.bytes, static_cast<int64_t>(fs::file_size(path)));
  EXPECT_EQ(report.bad_lines, 0);
  EXPECT_THAT(report.outputs, ElementsAre((folder_ / "out_text_document").string()));
  // An empty document has no sequence, but its place.
  const IndexedDataset dataset(report.outputs[0]);
  EXPECT_EQ(dataset.num_sequences(), 3);
  EXPECT_EQ(dataset.type(), TokenType::kUint16);
}

TEST_F(PreprocessTest, ReadsJsonOfAnyShape) {
  const std::vector<fs::path> inputs = {
      input("array.json", "\n[{\"text\": \"a\"},\n {\"text\": \"b\"}]\n"),
      input("object.json", "{\n \"text\": \"c\"\n}"), input("one.json", "{\"text\": \"d\"}\n"),
      input("lines.json", "{\"text\": \"e\"}\n{\"text\": \"f\"}\n"), input("empty.json", "[]")};
  preprocess(settings(inputs), byte_encoder());
  EXPECT_THAT(documents(), ElementsAre("a", "b", "c", "d", "e", "f"));
}

TEST_F(PreprocessTest, ContentsSayWhatNamesDoNot) {
  const std::string lines = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
  for (const char* name : {"x.ndjson", "x.JSONL", "part-00000", "x.jsonl.1", "x.JSON"}) {
    preprocess(settings({input(name, lines)}), byte_encoder());
    EXPECT_THAT(documents(), ElementsAre("a", "b")) << name;
  }
  preprocess(settings({input("array", "[{\"text\": \"c\"}]"), input("plain", "[a](b) {c}")}),
             byte_encoder());
  EXPECT_THAT(documents(), ElementsAre("c", "[a](b) {c}"));

  PreprocessSettings wanted = settings({input("x.json.txt", lines)});
  fs::remove(folder_ / "out_text_document.bin");
  fs::remove(folder_ / "out_text_document.idx");
  EXPECT_THAT(why_refused(wanted), HasSubstr("x.json.txt is plain text by its name, but JSON"));
  wanted.format = TextKind::kLines;
  preprocess(wanted, byte_encoder());
  EXPECT_THAT(documents(), ElementsAre("a", "b"));
  wanted.format = TextKind::kPlain;
  preprocess(wanted, byte_encoder());
  EXPECT_THAT(documents(), ElementsAre(lines));
}

TEST_F(PreprocessTest, ADamagedLineCostsItselfOnly) {
  const std::string good = "{\"text\": \"two\"}\n";
  for (const char* bad : {"{\"text\": \"one\"\n", "x\n", "{\"text\": \"a\", \"n\": 1.2.3}\n",
                          "{\"text\": \"a\", \"n\": 01}\n", "{\"text\": \"a\", \"n\": nan}\n"}) {
    PreprocessSettings wanted = settings({input("a.json", bad + good)});
    if (bad[0] == '{') {
      EXPECT_THAT(why_refused(wanted), HasSubstr("a.json line 1: ")) << bad;
    }
    wanted.format = TextKind::kLines;
    EXPECT_THAT(why_refused(wanted), HasSubstr("a.json line 1: ")) << bad;
    wanted.skip_bad_lines = true;
    EXPECT_EQ(preprocess(wanted, byte_encoder()).bad_lines, 1) << bad;
    EXPECT_THAT(documents(), ElementsAre("two")) << bad;
    fs::remove(folder_ / "out_text_document.bin");
    fs::remove(folder_ / "out_text_document.idx");
  }
}

TEST_F(PreprocessTest, TakesWhatPythonTakes) {
  EXPECT_THAT(why_refused(settings({input("c.jsonl", "{\"text\": \"a\", \"text\": NaN}")})),
              HasSubstr("no string under"));
  const std::string odd =
      "{\"n\": [NaN, -Infinity, Infinity, 1e400, -123456789012345678901234567890], "
      "\"s\": \"\\\" NaN 1e400\", \"text\": \"1e400\"}";
  preprocess(settings({input("a.jsonl", odd + "\n{\"text\": \"first\", \"text\": \"last\"}"),
                       input("b.json", "[" + odd + "]")}),
             byte_encoder());
  EXPECT_THAT(documents(), ElementsAre("1e400", "last", "1e400"));
}

TEST_F(PreprocessTest, ATextThatTheTokenizerGivesUpOnIsOneBadLine) {
  TextEncoder encoder = byte_encoder();
  encoder.encode = [](std::string_view text) {
    if (text == "long") throw InputError("the pattern fails");
    return byte_encoder().encode(text);
  };
  PreprocessSettings wanted = settings(
      {input("a.jsonl", "{\"q\": \"1\", \"a\": \"2\"}\n{\"q\": \"3\", \"a\": \"long\"}\n")});
  wanted.keys = {"q", "a"};
  try {
    preprocess(wanted, encoder);
    ADD_FAILURE() << "accepted";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("a.jsonl line 2: the pattern fails"));
  }
  wanted.skip_bad_lines = true;
  EXPECT_EQ(preprocess(wanted, encoder).bad_lines, 1);
  EXPECT_THAT(documents("q"), ElementsAre("1"));
  EXPECT_THAT(documents("a"), ElementsAre("2"));
}

TEST_F(PreprocessTest, BeginsDocumentsOnceAndWhereItIsAskedTo) {
  TextEncoder encoder = byte_encoder();
  encoder.begin = {'<'};
  PreprocessSettings wanted =
      settings({input("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"<b\"}\n{\"text\": \"\"}\n")});
  preprocess(wanted, encoder);
  EXPECT_THAT(documents(), ElementsAre("a", "<b", ""));
  wanted.prepend_bos = wanted.append_eod = true;
  preprocess(wanted, encoder);
  EXPECT_THAT(documents(), ElementsAre("<a$", "<b$", ""));
  EXPECT_THROW(preprocess(wanted, byte_encoder()), ConfigError);
}

TEST_F(PreprocessTest, LargeArraysAreCutIntoBatches) {
  std::string text = "[";
  for (int i = 0; i < 3000; ++i) {
    text += i == 0 ? "" : ",";
    text += "{\"text\":\"" + std::to_string(i) + std::string(1000, 'x') + "\"}";
  }
  preprocess(settings({input("a.json", text + "]")}), byte_encoder());
  const auto found = documents();
  ASSERT_EQ(found.size(), 3000u);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(std::stoul(found[i]), i);
}

TEST_F(PreprocessTest, WalksFoldersInOrder) {
  input("b/z.txt", "plain\r\ntext");
  input("b/c.md", "\xef\xbb\xbfmarked");
  input("a.jsonl", "{\"text\": \"first\"}");
  input(".hidden/x.txt", "no");
  input("b/.hidden.txt", "no");
  input("b/image", std::string("\0\1", 2));
  input("b/latin", "caf\xe9 au lait");
  input("b/README.txt", "about");
  input("LICENSE", "Apache");
  input("part-00000", "{\"text\": \"part\"}\n{\"text\": \"two\"}\n");
  PreprocessSettings wanted = settings({folder_ / "in"});
  const PreprocessReport report = preprocess(wanted, byte_encoder());
  EXPECT_THAT(documents(), ElementsAre("first", "plain\r\ntext", "part", "two"));
  std::vector<std::string> left_out;
  for (const fs::path& path : report.left_out) left_out.push_back(path.filename().string());
  EXPECT_THAT(left_out, ElementsAre("LICENSE", "README.txt", "c.md", "image", "latin"));
  // A format is everyone's.
  wanted.inputs = {folder_ / "in" / "b"};
  wanted.format = TextKind::kPlain;
  preprocess(wanted, byte_encoder());
  EXPECT_THAT(documents(), ElementsAre("marked", "plain\r\ntext"));
}

TEST_F(PreprocessTest, KeysBecomeDatasets) {
  PreprocessSettings wanted = settings({input("a.jsonl",
                                              "{\"q\": \"1\", \"a\": \"2\"}\n"
                                              "{\"a\": \"4\", \"q\": \"3\"}\n")});
  wanted.keys = {"q", "a"};
  preprocess(wanted, byte_encoder());
  EXPECT_THAT(documents("q"), ElementsAre("1", "3"));
  EXPECT_THAT(documents("a"), ElementsAre("2", "4"));
  wanted.inputs = {input("a.txt", "x")};
  EXPECT_THROW(preprocess(wanted, byte_encoder()), ConfigError);
}

TEST_F(PreprocessTest, NamesTheBadLineOrCountsIt) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"{\"text\": \"a\"", "line 2"},
      {"[1]", "no JSON object"},
      {"{\"other\": \"a\"}", "no key \"text\""},
      {"{\"text\": 5}", "no string under \"text\""},
      {"{\"text\": null}", "no string under \"text\""},
      {"{\"text\": \"\xff\"}", "line 2"},
      {"{\"text\": \"\\ud800\"}", "line 2"},
      {"{\"text\": \"\\udc00x\"}", "line 2"},
      {"{\"text\": \"a\"} x", "line 2"},
      {std::string("{\"text\": \"a\0\"}", 13), "line 2"},
      {std::string(5000, '['), "line 2"},
  };
  for (const auto& [line, why] : bad) {
    PreprocessSettings wanted =
        settings({input("a.jsonl", "{\"text\": \"a\"}\n" + line + "\n{\"text\": \"b\"}\n")});
    const std::string message = why_refused(wanted);
    EXPECT_THAT(message, HasSubstr("a.jsonl line 2: ")) << line;
    EXPECT_THAT(message, HasSubstr(why)) << line;
    wanted.skip_bad_lines = true;
    EXPECT_EQ(preprocess(wanted, byte_encoder()).bad_lines, 1) << line;
    EXPECT_THAT(documents(), ElementsAre("a", "b")) << line;
    fs::remove(folder_ / "out_text_document.bin");
    fs::remove(folder_ / "out_text_document.idx");
  }
  EXPECT_THAT(why_refused(settings({input("b.json", "[{\"text\": \"a\"}, 3]")})),
              HasSubstr("b.json element 2: no JSON object"));
  EXPECT_THAT(why_refused(settings({input("c.json", "[{\"text\": \"a\"}")})),
              HasSubstr("c.json: "));
  EXPECT_THAT(why_refused(settings({input("d.txt", "\xff")})), HasSubstr("d.txt: not valid UTF-8"));
}

TEST_F(PreprocessTest, RefusesWhatCannotWork) {
  const fs::path path = input("a.txt", "x");
  EXPECT_THROW(preprocess(settings({}), byte_encoder()), ConfigError);
  EXPECT_THAT(why_refused(settings({folder_ / "absent"})), HasSubstr("absent does not exist"));
  EXPECT_THAT(why_refused(settings({input("empty.jsonl", "\n\n")})), HasSubstr("no documents"));
  PreprocessSettings wanted = settings({path});
  wanted.append_eod = true;
  TextEncoder without_end = byte_encoder();
  without_end.eos_id.reset();
  EXPECT_THROW(preprocess(wanted, without_end), ConfigError);
  wanted = settings({path});
  wanted.num_workers = 0;
  EXPECT_THROW(preprocess(wanted, byte_encoder()), ConfigError);
  wanted = settings({path});
  wanted.keys = {"a", "a"};
  EXPECT_THROW(preprocess(wanted, byte_encoder()), ConfigError);
  wanted = settings({path});
  wanted.output_prefix = (path / "no" / "such").string();  // below a file
  EXPECT_THROW(preprocess(wanted, byte_encoder()), ConfigError);
  TextEncoder outside = byte_encoder();
  outside.vocab_size = 100;
  EXPECT_THROW(preprocess(settings({path}), outside), InternalError);
  EXPECT_EQ(num_outputs(), 0);
}

TEST_F(PreprocessTest, WorkersKeepTheOrderAndTheBytes) {
  std::string text;
  for (int i = 0; i < 20000; ++i)
    text += "{\"text\":\"" + std::to_string(i) + std::string(static_cast<size_t>(i % 400), 'y') +
            "\"}\n";
  text += "{\"text\":\"" + std::string(3 << 20, 'z') + "\"}\n";  // longer than a batch
  PreprocessSettings wanted = settings({input("a.jsonl", text)});
  preprocess(wanted, byte_encoder());
  const fs::path bin = folder_ / "out_text_document.bin", idx = folder_ / "out_text_document.idx";
  const std::string one_bin = read_file(bin), one_idx = read_file(idx);
  EXPECT_EQ(documents().size(), 20001u);
  wanted.num_workers = 4;
  uint64_t last = 0;
  int calls = 0;
  wanted.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GE(done, last);
    EXPECT_EQ(total, text.size());
    last = done;
    ++calls;
  };
  const PreprocessReport report = preprocess(wanted, byte_encoder());
  EXPECT_TRUE(read_file(bin) == one_bin);
  EXPECT_TRUE(read_file(idx) == one_idx);
  EXPECT_EQ(last, text.size());
  EXPECT_GT(calls, 5);
  EXPECT_GT(report.megabytes_per_second, 0);
}

TEST_F(PreprocessTest, AFailureStopsTheOtherWorkers) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "{\"text\":\"" + std::string(1 << 16, 'y') + "\"}\n";
  std::atomic<int> calls = 0;
  TextEncoder encoder = byte_encoder();
  encoder.encode = [&](std::string_view) -> std::vector<int32_t> {
    ++calls;
    throw InputError("the tokenizer gave up");
  };
  PreprocessSettings wanted = settings({input("a.jsonl", text)});
  wanted.num_workers = 3;
  EXPECT_THROW(preprocess(wanted, encoder), InputError);
  EXPECT_LT(calls, 200);
  EXPECT_EQ(num_outputs(), 0);
}

TEST_F(PreprocessTest, MakesTheFolderOfItsOutput) {
  PreprocessSettings wanted = settings({input("a.jsonl", "{\"text\": \"abc\"}\n")});
  wanted.output_prefix = (folder_ / "new" / "folder" / "out").string();
  preprocess(wanted, byte_encoder());
  EXPECT_EQ(IndexedDataset(wanted.output_prefix + "_text_document").num_documents(), 1);
}

TEST_F(PreprocessTest, TakesATokenizer) {
  PreprocessSettings wanted = settings({input("a.txt", "abc\xc3\xa9")});
  wanted.append_eod = true;
  const PreprocessReport report = preprocess(wanted, *Tokenizer::bytes());
  EXPECT_EQ(report.tokens, 6);
  EXPECT_EQ(read_sequence(IndexedDataset(report.outputs[0]), 0).back(),
            Tokenizer::bytes()->eos_id());
  EXPECT_THAT(documents(), ElementsAre("abc\xc3\xa9$"));
}

TEST_F(PreprocessTest, SurvivesDamage) {
  const std::string good =
      "{\"text\": \"one\\u00e9\", \"n\": [1, 2.5]}\r\n{\"text\": \"two\"}\n{\"text\": \"3\"}\n";
  for (const char* name : {"a.jsonl", "a.json", "a.txt"}) {
    PreprocessSettings wanted = settings({input(name, good)});
    const auto run = [&](const std::string& bytes) {
      input(name, bytes);
      const PreprocessReport report = preprocess(wanted, byte_encoder());
      EXPECT_EQ(documents().size(), static_cast<size_t>(report.documents));
    };
    read_damaged(good, 0.4, run);
    wanted.skip_bad_lines = true;
    EXPECT_GT(read_damaged(good, 0.4, run), 0);
  }
}

TEST_F(PreprocessTest, ReadsRealCorpora) {
  const fs::path data = "../shared/data/text";
  if (!fs::exists(data)) GTEST_SKIP() << "no sample files";
  PreprocessSettings wanted = settings({data / "llamafactory", data / "tinyshakespeare"});
  wanted.num_workers = 2;
  const PreprocessReport report = preprocess(wanted, byte_encoder());
  EXPECT_EQ(report.documents, 302);  // 300 lines of c4_demo.jsonl and two text files
  EXPECT_EQ(documents().back(), read_file(data / "tinyshakespeare/input.txt"));
}

}  // namespace
}  // namespace moetron
