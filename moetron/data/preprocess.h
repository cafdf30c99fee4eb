// From text to Megatron's .bin/.idx. Kinds of input, by the name's ending:
//   .jsonl, .ndjson  one JSON object a line;
//   .json            one object, an array of objects, or one object a line (as many corpora name
//                    it);
//   .txt             plain text: the whole file is one document.
// Other names are JSON where the content is, else plain text. A .txt that holds JSON is refused.
// Folders are walked recursively in the order of path names, leaving out hidden files, what is not
// text (a NUL or invalid UTF-8 near the beginning), README, LICENSE and the like, and plain text of
// other names than .txt; the report names them.
//
// Text is taken as it is, NUL and CR included; only a byte order mark at the start of a file and
// the line ends of JSONL (LF or CRLF) are dropped. Blank lines of JSONL are skipped. A line is bad
// that is no JSON object, lacks a key, holds no string under it, is not valid UTF-8, or has a
// surrogate escape without its partner (\ud800), which no UTF-8 can say, or that the tokenizer's
// pattern gives up on. Of a key that comes twice the last counts, and numbers may be what Python's
// json takes (NaN, Infinity, of any size). An array's element is a line in this sense, and so is a
// plain text file, or a .json file that does not parse. A single .json document, unlike lines, must
// be smaller than 4 GiB.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/data/text_format.h"

namespace moetron {

class Tokenizer;

struct PreprocessSettings {
  std::vector<std::filesystem::path> inputs;  // files or folders
  std::string output_prefix;                  // files are {prefix}_{key}_document.{bin,idx}
  std::vector<std::string> keys = {"text"};   // one dataset each; plain text allows one key only
  // Not empty: one dataset of this name instead, of the keys' texts that are not empty, with line
  // ends between them.
  std::string joined_key;
  bool clean = false;  // as data/clean_text.h says; a document of which nothing is left is left out
  std::optional<TextKind> format;  // of all inputs; without it as above
  bool prepend_bos = false;        // to documents with tokens; ConfigError without such a token
  bool append_eod = false;         // to documents with tokens; ConfigError without such a token
  bool skip_bad_lines = false;     // count bad lines; else InputError with file and line
  int num_workers = 1;             // threads; they do not change the order of documents
  // Called from the calling thread with input bytes done and in all; may be empty.
  std::function<void(uint64_t, uint64_t)> progress;
};

struct PreprocessReport {
  int64_t documents = 0;        // lines, array elements or plain files
  int64_t empty_documents = 0;  // of these, without a token under some key: no sequence there
  int64_t tokens = 0;           // of all keys
  int64_t bytes = 0;            // of input
  int64_t bad_lines = 0;
  int64_t cleaned_away = 0;  // documents with text of which cleaning left nothing
  std::vector<std::filesystem::path> left_out;  // in folders, no data
  double seconds = 0;
  double megabytes_per_second = 0;   // of input, 10^6 bytes
  std::vector<std::string> outputs;  // prefixes written, without .bin
};

// What of a tokenizer is needed here; encode() is called from several threads at once.
struct TextEncoder {
  std::function<std::vector<int32_t>(std::string_view)> encode;
  int64_t vocab_size = 0;
  std::optional<int32_t> eos_id;
  std::vector<int32_t> begin;  // that prepend_bos writes
};

// Nothing appears under the output names unless all went well, and what is there stays until then.
// The folder of output_prefix is made where it is missing.
PreprocessReport preprocess(const PreprocessSettings& settings, const TextEncoder& encoder);
PreprocessReport preprocess(const PreprocessSettings& settings, const Tokenizer& tokenizer);

}  // namespace moetron
