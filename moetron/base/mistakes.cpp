#include "moetron/base/mistakes.h"

#include <algorithm>

namespace moetron {

void Mistakes::add(std::string sentence) {
  if (std::find(sentences_.begin(), sentences_.end(), sentence) == sentences_.end())
    sentences_.push_back(std::move(sentence));
}

void Mistakes::throw_if_any() const {
  std::string message;
  for (const std::string& sentence : sentences_)
    message += (message.empty() ? "" : "\n") + sentence;
  if (!message.empty()) throw ConfigError(message);
}

}  // namespace moetron
