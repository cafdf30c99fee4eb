#include "moetron/generate/generate.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"
#include "moetron/generate/reader.h"
#include "moetron/models/model.h"

namespace moetron {
namespace {

void check_prompt(const ModelConfig& config, const std::vector<int32_t>& prompt,
                  int64_t max_new_tokens) {
  MT_CHECK_CONFIG(!prompt.empty(), "prompt: holds no token");
  for (const int32_t token : prompt) {
    MT_CHECK_CONFIG(token >= 0 && token < config.vocab_size, "prompt: token ", token,
                    " is outside the model's vocabulary (", config.vocab_size, ")");
  }
  const int64_t longest = config.max_position_embeddings;
  const int64_t wanted = static_cast<int64_t>(prompt.size()) + max_new_tokens;
  MT_CHECK_CONFIG(wanted <= longest, "prompt (", prompt.size(), " tokens) and max-new-tokens (",
                  max_new_tokens, ") exceed the model's max_position_embeddings (", longest, ")");
}

// A text under way.
struct Growing {
  size_t place;              // in the list of texts
  std::vector<int32_t> all;  // prompt and what came
  RandomStream random;
};

// What the reader has not read of it.
NewTokens unread(const TextReader& reader, int64_t sequence, const std::vector<int32_t>& text) {
  const auto begin = text.begin() + reader.length(sequence);
  return {sequence, {begin, text.end()}};
}

}  // namespace

std::vector<std::vector<int32_t>> generate(TextReader& reader,
                                           const std::vector<TextToContinue>& texts,
                                           const GenerateSettings& settings,
                                           const OnToken& on_token) {
  check_sampling(settings.sampling);
  std::vector<Growing> growing;
  for (size_t i = 0; i < texts.size(); ++i) {
    const TextToContinue& text = texts[i];
    check_prompt(reader.model().config(), text.prompt, settings.max_new_tokens);
    MT_CHECK(reader.length(text.sequence) < static_cast<int64_t>(text.prompt.size()),
             "all of a prompt of ", text.prompt.size(), " tokens was read before");
    growing.push_back({i, text.prompt, RandomStream(settings.seed, text.sample, "generate")});
  }
  std::vector<std::vector<int32_t>> generated(texts.size());
  for (int64_t count = 0; count < settings.max_new_tokens && !growing.empty(); ++count) {
    std::vector<NewTokens> next;
    for (const Growing& text : growing)
      next.push_back(unread(reader, texts[text.place].sequence, text.all));
    const at::Tensor logits = reader.read(next);  // [texts, vocab]
    for (size_t i = 0; i < growing.size(); ++i) {
      Growing& text = growing[i];
      const int32_t token =
          choose_token(logits[static_cast<int64_t>(i)], text.all, settings.sampling, text.random,
                       static_cast<uint64_t>(count));
      text.all.push_back(token);
      generated[text.place].push_back(token);
      if (on_token) on_token(text.place, token);
    }
    std::erase_if(growing, [&](const Growing& text) {
      return std::ranges::find(settings.end_tokens, text.all.back()) != settings.end_tokens.end();
    });
  }
  return generated;
}

}  // namespace moetron
