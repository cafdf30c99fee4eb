#include "moetron/base/mistakes.h"

#include <algorithm>

namespace moetron {

void Mistakes::add(std::string sentence) {
  if (std::find(sentences_.begin(), sentences_.end(), sentence) == sentences_.end())
    sentences_.push_back(std::move(sentence));
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
