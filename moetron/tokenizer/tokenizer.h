// Text to token ids and back: BPE over bytes or characters as a Hugging Face tokenizer.json
// describes it, with the results of the `tokenizers` library, or plain bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/tokenizer/added_tokens.h"

namespace moetron {

// A part of a text that is encoded on its own, from the part before it on.
struct TextPiece {
  size_t end = 0;         // bytes of the text
  bool is_plain = false;  // added tokens are not looked for: what looks like one is text
};

struct PlacedTokens {
  std::vector<int32_t> ids;
  std::vector<size_t> ends;  // the byte of the text behind each token
};

// Immutable after loading: every method may be called from many threads at once.
class Tokenizer {
 public:
  // `path` is a tokenizer.json, a vocabulary of tiktoken (tiktoken_file.h), a SentencePiece model
  // (sentencepiece_file.h) or a folder that holds one of them. A tokenizer_config.json beside it
  // adds tokens, names those that begin and end a text, as in transformers. Throws InputError,
  // naming the file and what is wrong with it: cut short, not BPE, a normalizer or pre-tokenizer
  // that is not supported. The file's truncation and padding are ignored.
  static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& path);

  // The file of a folder that load() reads, the first of the three kinds that there is; empty if
  // there is none.
  static std::filesystem::path find(const std::filesystem::path& folder);

  // Id b is byte b; id 256 ends a document ("<|endoftext|>"), so vocab_size() is 257. Text that
  // looks like the end token is encoded as its bytes.
  static std::shared_ptr<const Tokenizer> bytes();

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Added tokens found in the text become their ids, as in the library. `add_special_tokens` puts
  // in what stands around one sequence: prefix() and suffix(). Bytes that are not UTF-8 are read as
  // U+FFFD, one for each maximal invalid part, as Python's bytes.decode("utf-8", errors="replace")
  // does; bytes() takes them as they are. Throws InputError if a pattern of the file gives up on
  // the text (hand-written matchers do not).
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = false) const;

  // The tokens of valid UTF-8 text with their places, piece by piece; the pieces cover the text.
  // One piece gives the tokens of encode(). Where a normalizer changes a character, or a character
  // has several tokens, their ends are within it.
  PlacedTokens encode_pieces(std::string_view text, std::span<const TextPiece> pieces) const;

  // Always valid UTF-8: invalid bytes become U+FFFD by the same rule. Unknown ids give nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  int64_t vocab_size() const;       // the largest id + 1
  int64_t base_vocab_size() const;  // the same without the added tokens
  std::vector<AddedToken> added_tokens() const;
  // What the post-processor puts in front of a text and behind it.
  std::span<const int32_t> prefix() const;
  std::span<const int32_t> suffix() const;
  // bos_token of tokenizer_config.json, whether the post-processor adds it or not.
  std::optional<int32_t> bos_id() const;
  // The token that ends a document: eos_token of tokenizer_config.json, else the special token
  // that the post-processor puts last, else the added token "<|endoftext|>".
  std::optional<int32_t> eos_id() const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace moetron
