// What a tokenizer.json does to a text before it is cut: normal forms, lower case, replacing,
// stripping, text put in front.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "moetron/tokenizer/normal_forms.h"
#include "moetron/tokenizer/pattern.h"

namespace moetron {

struct LowercaseStep {};  // character by character, as Rust's char::to_lowercase

struct ReplaceStep {
  Pattern pattern;
  std::string content;
};

struct StripStep {  // white space
  bool left = true;
  bool right = true;
};

struct PrependStep {  // to a text that is not empty
  std::string text;
};

// Every byte as a character of the byte alphabet (byte_alphabet.h).
struct ByteAlphabetStep {};

using NormalizerStep =
    std::variant<NormalForm, LowercaseStep, ReplaceStep, StripStep, PrependStep, ByteAlphabetStep>;

// Memory that calls share, and what they gave.
struct NormalizedText {
  std::string_view text;     // the old one, or in a buffer
  std::vector<size_t> ends;  // as a Rewriter's; empty where the text is the old one
  bool lost_front = false;   // the old text's beginning was taken away
  std::string buffers[2];
};

class Normalizer {
 public:
  void add(NormalizerStep step) { steps_.push_back(std::move(step)); }
  bool is_empty() const { return steps_.empty(); }

  // Of valid UTF-8; `ends` are made if `with_ends`. Nothing is put in front of a text that
  // continues another. Throws InputError if a pattern gives up.
  void normalize(std::string_view text, bool with_ends, bool continues,
                 NormalizedText& result) const;
  std::string normalized(std::string_view text) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace moetron
