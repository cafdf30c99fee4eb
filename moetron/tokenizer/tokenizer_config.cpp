#include "moetron/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/base/parse_number.h"
#include "moetron/base/path.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Token = TokenizerConfig::Token;

constexpr std::array<std::string_view, 7> kNamedTokens = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

bool is_named(std::string_view key) {
  return std::find(kNamedTokens.begin(), kNamedTokens.end(), key) != kNamedTokens.end();
}

Json read_object(const fs::path& path) {
  if (!path_exists(path)) return Json::object();
  Json object = read_json(path);
  MT_CHECK_INPUT(object.is_object(), path.string(), " is not an object");
  return object;
}

bool read_flag(const Json& object, const char* key, bool otherwise, const std::string& place) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return otherwise;
  MT_CHECK_INPUT(found->is_boolean(), place, ": ", key, " is not true or false");
  return found->get<bool>();
}

// A string stands for a special token; an object {"content": ...} says its flags.
Token read_token(const Json& value, const std::string& place) {
  Token token;
  token.place = place;
  if (value.is_string()) {
    token.token.content = value.get<std::string>();
    token.token.special = true;
    return token;
  }
  const bool has_content =
      value.is_object() && value.contains("content") && value["content"].is_string();
  MT_CHECK_INPUT(has_content, place, " is neither a string nor a token with a content");
  AddedToken& added = token.token;
  added.content = value["content"].get<std::string>();
  added.special = read_flag(value, "special", false, place);
  added.normalized = read_flag(value, "normalized", !added.special, place);
  added.lstrip = read_flag(value, "lstrip", false, place);
  added.rstrip = read_flag(value, "rstrip", false, place);
  added.single_word = read_flag(value, "single_word", false, place);
  return token;
}

class ConfigReader {
 public:
  explicit ConfigReader(const fs::path& folder)
      : name_((folder / "tokenizer_config.json").string()),
        config_(read_object(folder / "tokenizer_config.json")) {
    if (config_.contains("added_tokens_decoder")) return;
    // Files of older releases count only where the newer key is absent.
    const Json map = read_object(folder / "special_tokens_map.json");
    for (const auto& [key, value] : map.items()) config_[key] = value;
    const fs::path added = folder / "added_tokens.json";
    const Json ids = read_object(added);
    for (const auto& [content, id] : ids.items()) {
      MT_CHECK_INPUT(id.is_number_integer(), added.string(), ": ", content, " has no integer id");
      numbered_.push_back(read_token(Json(content), added.string() + ": " + content));
      numbered_.back().id = id.get<int64_t>();
    }
  }

  TokenizerConfig read() {
    TokenizerConfig result;
    MT_CHECK_INPUT(!read_flag(config_, "split_special_tokens", false, name_), name_,
                   ": split_special_tokens is not supported: it must be false");
    read_named();
    read_extra();
    read_decoder();
    mark_special();
    result.bos = content_of("bos_token");
    result.eos = content_of("eos_token");
    result.adds_bos = read_flag(config_, "add_bos_token", false, name_);
    result.adds_eos = read_flag(config_, "add_eos_token", false, name_);
    result.named = std::move(names_);
    result.tokens = std::move(numbered_);
    for (auto* tokens : {&named_, &extra_})
      result.tokens.insert(result.tokens.end(), tokens->begin(), tokens->end());
    return result;
  }

 private:
  std::string place(const std::string& key) const { return name_ + ": " + key; }

  const Json* find(const std::string& key) const {
    const auto found = config_.find(key);
    return found == config_.end() || found->is_null() ? nullptr : &*found;
  }

  std::optional<std::string> content_of(const std::string& key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    return read_token(*value, place(key)).token.content;
  }

  // Also of names that only one model knows, such as image_token.
  void read_named() {
    for (const std::string_view key : kNamedTokens)
      if (const Json* value = find(std::string(key))) add_named(std::string(key), *value, key);
    for (const bool is_object : {true, false})
      for (const auto& [key, value] : config_.items())
        if (key.ends_with("_token") && !is_named(key) &&
            (is_object ? value.is_object() : value.is_string()))
          add_named(key, value, key);
  }

  void read_extra() {
    std::string key = "extra_special_tokens";
    const Json* tokens = find(key);
    if (tokens == nullptr || tokens->empty()) {
      key = "additional_special_tokens";
      tokens = find(key);
    }
    if (tokens == nullptr) return;
    MT_CHECK_INPUT(tokens->is_array() || tokens->is_object(), place(key),
                   " is neither a list nor an object of tokens");
    // An object gives names to its tokens.
    for (const auto& [name, value] : tokens->items()) {
      if (tokens->is_object()) {
        add_named(name, value, key);
      } else {
        extra_.push_back(read_token(value, place(key)));
      }
    }
  }

  void add_named(const std::string& name, const Json& value, std::string_view key) {
    named_.push_back(read_token(value, place(std::string(key))));
    names_[name] = named_.back().token.content;
  }

  // {"318": {"content": "<|think|>", ...}}, in the order of the ids.
  void read_decoder() {
    const Json* decoder = find("added_tokens_decoder");
    if (decoder != nullptr) {
      MT_CHECK_INPUT(decoder->is_object(), place("added_tokens_decoder"), " is not an object");
      for (const auto& [number, value] : decoder->items()) {
        const std::string shown = place("added_tokens_decoder: ") + number;
        const auto id = parse_number<int64_t>(number);
        MT_CHECK_INPUT(id && *id >= 0, shown, " is not an id");
        numbered_.push_back(read_token(value, shown));
        numbered_.back().id = *id;
        numbered_.back().has_flags = true;
      }
    }
    std::stable_sort(numbered_.begin(), numbered_.end(),
                     [](const Token& a, const Token& b) { return a.id < b.id; });
  }

  // What has a name is special, whatever its flags say; what is only numbered by an old file is not
  // special unless it is named.
  void mark_special() {
    const auto is_special = [&](const std::string& content, bool extra_too) {
      const auto holds = [&](const std::vector<Token>& tokens) {
        return std::any_of(tokens.begin(), tokens.end(),
                           [&](const Token& token) { return token.token.content == content; });
      };
      return holds(named_) || (extra_too && holds(extra_));
    };
    for (Token& token : numbered_) {
      if (token.has_flags) {
        token.token.special = token.token.special || is_special(token.token.content, false);
      } else {
        token.token.special = is_special(token.token.content, true);
        token.token.normalized = !token.token.special;
      }
    }
    for (Token& token : named_) token.token.special = true;
  }

  std::string name_;
  Json config_;
  std::vector<Token> numbered_;
  std::vector<Token> named_;
  std::vector<Token> extra_;
  std::map<std::string, std::string> names_;
};

}  // namespace

TokenizerConfig read_tokenizer_config(const fs::path& folder) {
  return ConfigReader(folder).read();
}

void add_config_tokens(const TokenizerConfig& config, TokenizerFile& file) {
  std::unordered_map<std::string, size_t> added;  // content -> place in file.added_tokens
  int64_t next_id = static_cast<int64_t>(file.vocab.size());
  for (size_t i = 0; i < file.added_tokens.size(); ++i) {
    added.emplace(file.added_tokens[i].content, i);
    next_id = std::max<int64_t>(next_id, int64_t{file.added_tokens[i].id} + 1);
  }
  std::unordered_map<std::string_view, int32_t> vocab;
  if (!config.tokens.empty())
    for (const auto& [token, id] : file.vocab) vocab.emplace(token, id);
  for (const Token& token : config.tokens) {
    if (token.token.content.empty()) continue;
    auto found = added.find(token.token.content);
    if (found == added.end()) {
      const auto known = vocab.find(token.token.content);
      const int64_t free_id = file.has_own_ids ? token.id.value_or(next_id) : next_id;
      const int64_t id = known != vocab.end() ? known->second : free_id;
      MT_CHECK_INPUT(id < kMaxTokens, token.place, " has no id below ", kMaxTokens, " left");
      next_id = std::max(next_id, id + 1);
      found = added.emplace(token.token.content, file.added_tokens.size()).first;
      file.added_tokens.push_back(token.token);
      file.added_tokens.back().id = static_cast<int32_t>(id);
    } else if (token.has_flags) {
      const int32_t id = file.added_tokens[found->second].id;
      file.added_tokens[found->second] = token.token;
      file.added_tokens[found->second].id = id;
    }
    const int32_t id = file.added_tokens[found->second].id;
    MT_CHECK_INPUT(!token.id || *token.id == id, token.place, " (\"", token.token.content,
                   "\") has the id ", id, " in the tokenizer beside it");
  }
}

}  // namespace moetron
