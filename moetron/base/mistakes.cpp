#include "moetron/base/mistakes.h"

#include <algorithm>
#include <sstream>

namespace moetron {

void Mistakes::add(std::string sentence) {
  if (std::find(sentences_.begin(), sentences_.end(), sentence) == sentences_.end())
    sentences_.push_back(std::move(sentence));
}

void Mistakes::add_lines(const std::string& sentences) {
  std::istringstream lines(sentences);
  for (std::string line; std::getline(lines, line);) add(std::move(line));
}

std::string Mistakes::joined(const char* separator) const {
  std::string all;
  for (const std::string& sentence : sentences_) all += (all.empty() ? "" : separator) + sentence;
  return all;
}

void Mistakes::throw_if_any() const {
  if (count() > 0) throw ConfigError(joined("\n"));
}

}  // namespace moetron
