#include "moetron/tokenizer/decoder.h"

#include <optional>
#include <string_view>

#include "moetron/tokenizer/byte_alphabet.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

using Texts = std::vector<std::string>;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (text.find(from) == std::string::npos) return;
  std::string replaced;
  size_t copied = 0;
  for (size_t at = 0; (at = text.find(from, copied)) != std::string::npos;) {
    replaced.append(text, copied, at - copied).append(to);
    copied = at + from.size();
  }
  text = replaced.append(text, copied);
}

// Of "<0xE4>"; one sign may be a plus, as Rust reads numbers.
std::optional<char> byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (size_t i = 3; i < 5; ++i) {
    const char small = static_cast<char>(token[i] | 0x20);
    const bool is_digit = token[i] >= '0' && token[i] <= '9';
    if (i == 3 && token[i] == '+') continue;
    if (!is_digit && (small < 'a' || small > 'f')) return std::nullopt;
    value = value * 16 + (is_digit ? token[i] - '0' : small - 'a' + 10);
  }
  return static_cast<char>(value);
}

class DecoderRun {
 public:
  explicit DecoderRun(Texts& tokens) : tokens_(tokens) {}

  void operator()(const ReplaceStep& step) {
    std::vector<TextSpan> matches;
    for (std::string& token : tokens_) {
      matches.clear();
      step.pattern.find_all(token, matches);
      std::string replaced;
      size_t gap = 0;
      for (const TextSpan& match : matches) {
        replaced.append(token, gap, match.begin - gap).append(step.content);
        gap = match.end;
      }
      token = replaced.append(token, gap);
    }
  }

  void operator()(const ByteFallbackDecoder&) {
    Texts decoded;
    std::string bytes;
    const auto give_bytes = [&] {
      if (bytes.empty()) return;
      if (is_utf8(bytes)) {
        decoded.push_back(bytes);
      } else {
        decoded.insert(decoded.end(), bytes.size(), std::string(kReplacement));
      }
      bytes.clear();
    };
    for (std::string& token : tokens_) {
      if (const auto byte = byte_of(token)) {
        bytes += *byte;
        continue;
      }
      give_bytes();
      decoded.push_back(std::move(token));
    }
    give_bytes();
    tokens_ = std::move(decoded);
  }

  void operator()(const FuseDecoder&) { join({}); }

  void operator()(const ByteLevelDecoder&) {
    for (std::string& token : tokens_) token = alphabet_to_bytes(token);
    join({});
    if (!is_utf8(tokens_[0])) tokens_[0] = replace_invalid_utf8(tokens_[0]);
  }

  void operator()(const StripDecoder& step) {
    for (std::string& token : tokens_) {
      std::string_view text = token;
      for (size_t i = 0; i < step.start && text.starts_with(step.content); ++i)
        text.remove_prefix(step.content.size());
      for (size_t i = 0; i < step.stop && text.ends_with(step.content); ++i)
        text.remove_suffix(step.content.size());
      token = std::string(text);
    }
  }

  void operator()(const MetaspaceDecoder& step) {
    for (size_t i = 0; i < tokens_.size(); ++i)
      replace_all(tokens_[i], step.replacement, i == 0 && step.drops_first ? "" : " ");
  }

  void operator()(const SuffixDecoder& step) {
    for (size_t i = 0; i < tokens_.size(); ++i)
      replace_all(tokens_[i], step.suffix, i + 1 < tokens_.size() ? " " : "");
  }

  void join(std::string_view between) {
    std::string text;
    for (size_t i = 0; i < tokens_.size(); ++i)
      text.append(i > 0 ? between : std::string_view()).append(tokens_[i]);
    tokens_.assign(1, std::move(text));
  }

 private:
  Texts& tokens_;
};

}  // namespace

std::string decode_tokens(const std::vector<DecoderStep>& steps, std::vector<std::string> tokens) {
  if (tokens.empty()) return {};
  DecoderRun run(tokens);
  for (const DecoderStep& step : steps) std::visit(run, step);
  run.join(steps.empty() ? " " : "");
  return std::move(tokens[0]);
}

}  // namespace moetron
