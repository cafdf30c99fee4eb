#include "moetron/tokenizer/tiktoken_file.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <unordered_set>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/parse_number.h"
#include "moetron/tokenizer/byte_alphabet.h"
#include "moetron/tokenizer/derived_merges.h"

namespace moetron {
namespace {

// Longer tokens take too long to take apart; the longest of today have 256 bytes.
constexpr size_t kMaxTokenBytes = 4096;

struct Special {
  std::string_view content;
  int32_t id;
};

struct KnownFile {
  std::string_view name;
  WordMatcher matcher;
  bool normalizes = false;  // NFC
  std::vector<Special> special;
};

std::vector<KnownFile> known_files() {
  return {{"qwen.tiktoken",
           WordMatcher::kQwen,
           true,
           {{"<|endoftext|>", 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}}},
          {"cl100k_base.tiktoken",
           WordMatcher::kLlama3,
           false,
           {{"<|endoftext|>", 100257},
            {"<|fim_prefix|>", 100258},
            {"<|fim_middle|>", 100259},
            {"<|fim_suffix|>", 100260},
            {"<|endofprompt|>", 100276}}},
          {"o200k_base.tiktoken",
           WordMatcher::kGpt4o,
           false,
           {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
          {"p50k_base.tiktoken", WordMatcher::kGpt2, false, {{"<|endoftext|>", 50256}}},
          {"r50k_base.tiktoken", WordMatcher::kGpt2, false, {{"<|endoftext|>", 50256}}},
          {"tiktoken.model", WordMatcher::kKimi, false, {}},
          {"tokenizer.model",
           WordMatcher::kLlama3,
           false,
           {{"<|begin_of_text|>", 128000},
            {"<|end_of_text|>", 128001},
            {"<|start_header_id|>", 128006},
            {"<|end_header_id|>", 128007},
            {"<|eot_id|>", 128009}}}};
}

// What follows <|im_end|> in qwen.tiktoken.
constexpr int32_t kFirstQwenExtra = 151646;
constexpr int32_t kNumQwenExtras = 205;

std::optional<std::string> decode_base64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  for (size_t i = 0; i < text.size(); i += 4) {
    uint32_t group = 0;
    for (size_t k = i; k < i + 4; ++k) {
      const bool is_padding = k >= text.size() - padding;
      const size_t digit = is_padding ? 0 : kDigits.find(text[k]);
      if (digit == std::string_view::npos) return std::nullopt;
      group = group << 6 | static_cast<uint32_t>(digit);
    }
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(group >> shift & 0xFF);
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

struct Entry {
  std::string bytes;
  int32_t rank;
};

// Nothing where it is not "BASE64 RANK".
std::optional<Entry> parse_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  auto bytes = decode_base64(line.substr(0, space));
  const auto rank = parse_number<int64_t>(line.substr(space + 1));
  if (!bytes || !rank || *rank < 0 || *rank >= kMaxTokens) return std::nullopt;
  return Entry{std::move(*bytes), static_cast<int32_t>(*rank)};
}

std::string in_alphabet(std::string_view bytes) {
  std::string token;
  for (const char byte : bytes) token += alphabet_character(static_cast<uint8_t>(byte));
  return token;
}

std::vector<Entry> parse_entries(std::string_view text, const std::string& name) {
  std::vector<Entry> entries;
  std::unordered_set<std::string> tokens;
  std::vector<bool> is_taken;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    auto entry = parse_line(line);
    MT_CHECK_INPUT(entry.has_value(), name, ": line ", number,
                   " is not a token in base 64 and its rank, an integer below ", kMaxTokens);
    MT_CHECK_INPUT(entry->bytes.size() <= kMaxTokenBytes, name, ": line ", number,
                   " has a token of ", entry->bytes.size(), " bytes; Moetron reads at most ",
                   kMaxTokenBytes);
    MT_CHECK_INPUT(tokens.insert(entry->bytes).second, name, ": line ", number,
                   " has a token that an earlier line has too");
    const auto rank = static_cast<size_t>(entry->rank);
    if (rank >= is_taken.size()) is_taken.resize(rank + rank / 2 + 1);
    MT_CHECK_INPUT(!is_taken[rank], name, ": line ", number, " has the rank ", rank,
                   " of an earlier line");
    is_taken[rank] = true;
    entries.push_back(std::move(*entry));
  }
  return entries;
}

void add_special(std::string_view content, int32_t id, TokenizerFile& file) {
  AddedToken& token = file.added_tokens.emplace_back();
  token.content = content;
  token.id = id;
  token.special = true;
}

}  // namespace

bool is_tiktoken(std::string_view text) {
  std::string_view line = text.substr(0, std::min(text.find('\n'), text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return parse_line(line).has_value();
}

TokenizerFile parse_tiktoken_file(std::string_view text, const std::string& name) {
  const std::string file_name = std::filesystem::path(name).filename().string();
  const std::vector<KnownFile> known_names = known_files();
  const auto known = std::ranges::find(known_names, file_name, &KnownFile::name);
  MT_CHECK_INPUT(known != known_names.end(), name,
                 " is a vocabulary that does not say how text is cut, and its name is none that "
                 "Moetron knows: qwen.tiktoken, cl100k_base.tiktoken, o200k_base.tiktoken, "
                 "p50k_base.tiktoken, r50k_base.tiktoken, tiktoken.model (Kimi's) or "
                 "tokenizer.model (Llama-3's)");
  std::vector<Entry> entries = parse_entries(text, name);
  MT_CHECK_INPUT(!entries.empty(), name, " is empty");
  std::ranges::sort(entries, {}, &Entry::rank);
  TokenizerFile file;
  file.is_byte_level = true;
  file.has_own_ids = true;
  file.has_processor = false;
  file.ignore_merges = true;  // a piece that is a token is one
  file.stages.emplace_back(known->matcher);
  if (known->normalizes) file.normalizer.add(NormalForm::kNfc);
  std::vector<std::string> tokens;
  for (const Entry& entry : entries) {
    file.vocab.emplace_back(in_alphabet(entry.bytes), entry.rank);
    tokens.push_back(entry.bytes);
  }
  for (const auto& [left, right] : derive_merges(tokens, false))
    file.merges.emplace_back(in_alphabet(left), in_alphabet(right));
  for (const Special& special : known->special) add_special(special.content, special.id, file);
  if (known->name == "tokenizer.model") {  // Llama-3's
    file.bos = known->special[0].id;
    file.eos = known->special[1].id;
  }
  if (known->name == "qwen.tiktoken")
    for (int32_t i = 0; i < kNumQwenExtras; ++i)
      add_special(concat("<|extra_", i, "|>"), kFirstQwenExtra + i, file);
  return file;
}

}  // namespace moetron
