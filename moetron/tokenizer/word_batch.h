// Words on their way from the code that cuts text to the code that encodes them: a few at a time,
// so that no list of all words of a text is made, and the memory that they need can be fetched for
// many at once.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace moetron {

class WordConsumer {
 public:
  virtual void take(std::span<const std::string_view> words) = 0;

 protected:
  ~WordConsumer() = default;
};

class WordBatch {
 public:
  static constexpr size_t kMaxWords = 64;

  explicit WordBatch(WordConsumer& consumer) : consumer_(consumer) {}

  void add(std::string_view word) {
    words_[size_++] = word;
    if (size_ == kMaxWords) flush();
  }
  // Gives what there is to the consumer; text that words lie in must live until then.
  void flush() {
    if (size_ == 0) return;
    consumer_.take({words_.data(), size_});
    size_ = 0;
  }

 private:
  WordConsumer& consumer_;
  size_t size_ = 0;
  std::array<std::string_view, kMaxWords> words_;
};

}  // namespace moetron
