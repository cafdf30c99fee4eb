#include "moetron/generate/prompt.h"

#include <algorithm>
#include <optional>
#include <sstream>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/base/path.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

int32_t token_id(const Json& value, const std::string& place) {
  const bool is_id = value.is_number_integer() && value >= 0 && value <= INT32_MAX;
  MT_CHECK_INPUT(is_id, place, " is neither a token nor a list of tokens");
  return value.get<int32_t>();
}

// Nothing where the file or the key is absent or null.
std::optional<std::vector<int32_t>> end_tokens_of(const std::filesystem::path& path) {
  if (!path_exists(path)) return std::nullopt;
  const Json config = read_json(path);
  const std::string place = path.string() + ": eos_token_id";
  if (!config.is_object() || !config.contains("eos_token_id") || config["eos_token_id"].is_null())
    return std::nullopt;
  const Json& value = config["eos_token_id"];
  if (!value.is_array()) return std::vector<int32_t>{token_id(value, place)};
  std::vector<int32_t> tokens;
  for (const Json& token : value) tokens.push_back(token_id(token, place));
  return tokens;
}

}  // namespace

std::vector<std::string> read_prompts(const std::filesystem::path& path) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  std::string text = read_file(path);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  MT_CHECK_CONFIG(!lines.empty(), "prompt-file (", path.string(), ") holds no prompt");
  return lines;
}

std::vector<int32_t> prompt_tokens(const Tokenizer& tokenizer, const std::string& prompt) {
  std::vector<int32_t> tokens = tokenizer.encode(prompt);
  const auto prefix = tokenizer.prefix();
  const auto suffix = tokenizer.suffix();
  const auto begins = std::ranges::mismatch(prefix, tokens).in1 == prefix.end();
  if (!begins) tokens.insert(tokens.begin(), prefix.begin(), prefix.end());
  const bool ends = tokens.size() >= suffix.size() &&
                    std::equal(suffix.begin(), suffix.end(),
                               tokens.end() - static_cast<ptrdiff_t>(suffix.size()));
  if (!ends) tokens.insert(tokens.end(), suffix.begin(), suffix.end());
  return tokens;
}

std::vector<int32_t> end_tokens(const std::filesystem::path& folder, const Tokenizer& tokenizer) {
  for (const char* name : {"generation_config.json", "config.json"})
    if (auto tokens = end_tokens_of(folder / name)) return *tokens;
  if (tokenizer.eos_id()) return {*tokenizer.eos_id()};
  return {};
}

}  // namespace moetron
