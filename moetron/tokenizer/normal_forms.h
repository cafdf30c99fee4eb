// Unicode's normal forms (Unicode Standard Annex #15) by the tables of Unicode 9.0, as the
// `tokenizers` library has them: characters that are newer stay as they are.
#pragma once

#include <string_view>
#include <vector>

#include "moetron/tokenizer/rewriter.h"

namespace moetron {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Writes the form of valid UTF-8 text; false, and nothing written, if it is the text as it is.
bool write_normal_form(NormalForm form, std::string_view text, Rewriter& out);

// By code point: what may change in this form, or compose with the character before it, or change
// places with others. In front of any other character a text may be cut. Made at the first call.
const std::vector<bool>& active_characters(NormalForm form);

}  // namespace moetron
