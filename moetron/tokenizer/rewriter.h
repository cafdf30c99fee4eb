// A text that is written anew, and where its bytes come from.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace moetron {

class Rewriter {
 public:
  // `ends`, if not null, gets for each byte of the new text, and for its beginning, the place in
  // the old text behind what it came from.
  Rewriter(std::string& text, std::vector<size_t>* ends) : text_(text), ends_(ends) {
    text_.clear();
    if (ends_ != nullptr) ends_->assign(1, 0);
  }

  // A part of the old text, which begins there at `begin`.
  void copy(std::string_view part, size_t begin) {
    text_.append(part);
    if (ends_ == nullptr) return;
    for (size_t i = 1; i <= part.size(); ++i) ends_->push_back(begin + i);
  }
  // What stands for a part of the old text that ends at `end`.
  void put(std::string_view part, size_t end) {
    text_.append(part);
    if (ends_ != nullptr) ends_->resize(text_.size() + 1, end);
  }

 private:
  std::string& text_;
  std::vector<size_t>* ends_;
};

}  // namespace moetron
