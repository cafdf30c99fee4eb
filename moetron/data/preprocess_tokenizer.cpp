#include "moetron/data/preprocess.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {

PreprocessReport preprocess(const PreprocessSettings& settings, const Tokenizer& tokenizer) {
  TextEncoder encoder = {[&](std::string_view text) { return tokenizer.encode(text); },
                         tokenizer.vocab_size(),
                         tokenizer.eos_id(),
                         {tokenizer.prefix().begin(), tokenizer.prefix().end()}};
  if (encoder.begin.empty() && tokenizer.bos_id()) encoder.begin = {*tokenizer.bos_id()};
  return preprocess(settings, encoder);
}

}  // namespace moetron
