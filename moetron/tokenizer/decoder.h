// How the texts of tokens become one text, where they are not simply bytes.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "moetron/tokenizer/normalizer.h"

namespace moetron {

struct ByteFallbackDecoder {};  // "<0xE4>" and the like are bytes
struct FuseDecoder {};          // all become one
struct ByteLevelDecoder {};     // the byte alphabet (byte_alphabet.h); all become one

struct StripDecoder {  // from each, at most so many of a character
  std::string content;
  size_t start = 0;
  size_t stop = 0;
};

struct MetaspaceDecoder {
  std::string replacement;   // is a space
  bool drops_first = false;  // but nothing in the first
};

struct SuffixDecoder {  // ends a word, behind which is a space
  std::string suffix;
};

using DecoderStep = std::variant<ReplaceStep, ByteFallbackDecoder, FuseDecoder, ByteLevelDecoder,
                                 StripDecoder, MetaspaceDecoder, SuffixDecoder>;

// The text of tokens; without steps they are joined by spaces, as in the library.
std::string decode_tokens(const std::vector<DecoderStep>& steps, std::vector<std::string> tokens);

}  // namespace moetron
