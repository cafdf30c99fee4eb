// For tests of this folder: command lines as one text.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/config/command_line.h"

namespace moetron {

// Cut at white space, as a shell does with an unquoted variable.
inline std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

inline ParsedCommandLine parse_words(const std::vector<std::string>& words) {
  std::vector<const char*> argv{"moetron"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  return parse_command_line(static_cast<int>(argv.size()), argv.data());
}

inline ParsedCommandLine parse(const std::string& text) {
  return parse_words(words_of(text));
}

// The message of the ConfigError that parsing ends in; empty if it does not.
inline std::string error_of(const std::string& text) {
  try {
    parse(text);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

// What pretrain cannot do without, then `more`.
inline std::string pretrain(const std::string& more = "") {
  return "pretrain --model-family qwen --vocab-size 256 --seq-length 64 --micro-batch-size 2 "
         "--global-batch-size 8 "
         "--train-iters 10 --lr 1e-3 --data-path data/text_document " +
         more;
}

}  // namespace moetron
