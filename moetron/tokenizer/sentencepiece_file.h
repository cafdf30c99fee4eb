// Models of the SentencePiece library (tokenizer.model), of BPE.
#pragma once

#include <string>
#include <string_view>

#include "moetron/tokenizer/tokenizer_file.h"

namespace moetron {

// The protobuf message ModelProto of
// https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto. The ids of a
// text are that library's, but that control tokens such as </s> are found in a text, as
// transformers does it; none are put around a text. Throws InputError for what is not BPE, or
// normalises by a table of its own.
TokenizerFile parse_sentencepiece_file(std::string_view bytes, const std::string& name);

}  // namespace moetron
