// What a loaded tokenizer consists of, between loading (tokenizer_load.cpp) and use
// (tokenizer.cpp).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/tokenizer/added_tokens.h"
#include "moetron/tokenizer/bpe.h"
#include "moetron/tokenizer/decoder.h"
#include "moetron/tokenizer/normalizer.h"
#include "moetron/tokenizer/pretokenizer.h"
#include "moetron/tokenizer/token_places.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {

// What one call of encode() works with. It outlives the call, so that its memory is asked for once.
struct EncodeScratch {
  BpeScratch bpe;
  std::vector<TextPart> raw_parts;
  std::vector<TextPart> normalized_parts;
  NormalizedText normalized;
};

// As many scratches as there were calls at the same time; one lock a call.
class ScratchPool {
 public:
  std::unique_ptr<EncodeScratch> take();
  void give_back(std::unique_ptr<EncodeScratch> scratch);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<EncodeScratch>> free_;
};

// The bytes of every token, or its text as the file has it where there is a decoder, end to end.
class TokenBytes {
 public:
  void set(int32_t id, std::string_view bytes);                          // the last of an id counts
  std::string_view get(int32_t id) const;                                // empty for an unknown id
  int64_t size() const { return static_cast<int64_t>(places_.size()); }  // the largest id + 1
  bool contains(int32_t id) const;

 private:
  struct Place {
    size_t begin = SIZE_MAX;
    size_t length = 0;
  };
  std::vector<Place> places_;
  std::string bytes_;
};

struct Tokenizer::Parts {
  class WordEncoder;

  bool is_bytes = false;  // then only bytes, special and eos are set
  TokenBytes bytes;
  int64_t base_vocab_size = 0;  // the largest id of the model's own tokens + 1
  std::vector<bool> special;    // by id, up to the largest special one
  Normalizer normalizer;
  AddedTokenFinder raw_tokens;         // looked for before normalisation
  AddedTokenFinder normalized_tokens;  // and after it
  std::vector<PreTokenizerStage> stages;
  Bpe bpe;
  std::optional<std::vector<DecoderStep>> decoder;  // nothing: tokens are their bytes
  std::vector<int32_t> prefix;                      // around a text, with add_special_tokens
  std::vector<int32_t> suffix;
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
  mutable ScratchPool scratches;

  // How a part of a text is encoded.
  struct PartContext {
    bool is_first = true;     // it begins the text
    bool continues = false;   // it follows other text of the same
    bool finds_added = true;  // the added tokens that are found after normalisation
    TokenPlaces* places = nullptr;
  };
  void encode_part(std::string_view text, const PartContext& context, EncodeScratch& scratch,
                   std::vector<int32_t>& ids_out) const;
};

}  // namespace moetron
