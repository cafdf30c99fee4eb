// The user's mistakes, gathered so that all of them are told at once.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "moetron/base/error.h"

namespace moetron {

class Mistakes {
 public:
  // check(rows == tokens, "rows (", rows, ") differ from tokens (", tokens, ")") adds the sentence
  // unless the condition holds; whether it does is returned.
  template <class... Args>
  bool check(bool condition, const Args&... sentence) {
    if (!condition) add(concat(sentence...));
    return condition;
  }
  void add(std::string sentence);  // one that is known already is not told twice

  // Does the work; a ConfigError that it throws becomes a mistake, each of its lines one. Whether
  // the work was done.
  template <class Work>
  bool collect(const Work& work) {
    try {
      work();
      return true;
    } catch (const ConfigError& error) {
      add_lines(error.what());
      return false;
    }
  }

  void add_lines(const std::string& sentences);
  size_t count() const { return sentences_.size(); }
  std::string joined(const char* separator) const;
  // A ConfigError with a line for each mistake, if there are any.
  void throw_if_any() const;

 private:
  std::vector<std::string> sentences_;
};

}  // namespace moetron
