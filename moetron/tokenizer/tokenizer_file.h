// A tokenizer.json as plain data, checked: https://github.com/huggingface/tokenizers, "type" for
// "type". What Moetron does not do in the same way as that library is refused here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moetron/tokenizer/added_tokens.h"
#include "moetron/tokenizer/char_units.h"
#include "moetron/tokenizer/decoder.h"
#include "moetron/tokenizer/normalizer.h"
#include "moetron/tokenizer/pretokenizer.h"

namespace moetron {

// Ids are below this. The largest vocabularies today have 2^18; the tables grow with the ids.
constexpr int64_t kMaxTokens = int64_t{1} << 21;

// What SentencePiece writes for a space, U+2581.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

struct TokenizerFile {
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // in order of rank
  bool ignore_merges = false;  // a piece that is a token is taken whole
  // Pieces are merged from bytes, and tokens are written in the byte alphabet (byte_alphabet.h);
  // else from characters.
  bool is_byte_level = false;
  CharUnitOptions characters;  // but for `unknown`
  std::string unknown;         // the token of what is unknown, or nothing
  std::vector<AddedToken> added_tokens;
  bool has_own_ids = false;           // added tokens need not follow those of the model
  bool has_written_contents = false;  // added tokens are written as they are after normalisation
  Normalizer normalizer;
  std::vector<PreTokenizerStage> stages;
  // How tokens become text; nothing: as their bytes.
  std::optional<std::vector<DecoderStep>> decoder;
  // What the post-processor puts around one text.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  // Of files that have no post-processor: what begins and ends a text, unless tokenizer_config.json
  // names other tokens; it also says whether they are put around it.
  bool has_processor = true;
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
};

// `name` is the file's, for messages. Throws InputError.
TokenizerFile parse_tokenizer_file(std::string_view text, const std::string& name);

}  // namespace moetron
