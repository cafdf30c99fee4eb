#include <algorithm>
#include <array>
#include <utility>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/tokenizer/byte_alphabet.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/tokenizer/tokenizer_file.h"
#include "moetron/tokenizer/tokenizer_parts.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kUsualEnd = "<|endoftext|>";

Bpe make_bpe(const TokenizerFile& file, const TextToId& ids, const std::string& name) {
  const auto id_of = [&](const std::string& token, size_t rank) {
    const auto found = ids.find(token);
    MT_CHECK_INPUT(found != ids.end(), name, ": merge ", rank, " names the token \"", token,
                   "\", which is not in the vocabulary");
    return found->second;
  };
  MergeTable merges(file.merges.size());
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    const auto& [left, right] = file.merges[rank];
    const int32_t left_id = id_of(left, rank);
    const int32_t right_id = id_of(right, rank);
    merges.insert(left_id, right_id, {static_cast<uint32_t>(rank), id_of(left + right, rank)});
  }
  std::array<int32_t, 256> byte_ids;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(alphabet_character(static_cast<uint8_t>(byte)));
    byte_ids[byte] = found != ids.end() ? found->second : -1;
  }
  TextToId whole_pieces;
  if (file.ignore_merges) {
    for (const auto& [token, id] : file.vocab) {
      if (is_alphabet_token(token)) whole_pieces.emplace(alphabet_to_bytes(token), id);
    }
  }
  return {byte_ids, std::move(merges), std::move(whole_pieces)};
}

// An added token is a token of the model, or follows the largest id so far: the library numbers
// them so, whatever the file says, and ids that differ would not mean the same to both.
void check_added_token(const AddedToken& token, int64_t next_id, const TextToId& ids,
                       const TokenBytes& bytes, const std::string& name) {
  const auto known = ids.find(token.content);
  const int64_t expected = known != ids.end() ? known->second : next_id;
  MT_CHECK_INPUT(token.id == expected, name, ": the added token \"", token.content,
                 "\" has the id ", token.id, " but should have ", expected);
  MT_CHECK_INPUT(known != ids.end() || !bytes.contains(token.id), name, ": the id ", token.id,
                 " is given to the added token \"", token.content,
                 "\" and to a token of the model");
}

struct AddedTokenGroup {
  std::vector<AddedToken> tokens;
  std::vector<std::string> contents;

  AddedTokenFinder make_finder() const { return {tokens, contents}; }
};

template <class Parts>
void set_added_tokens(const TokenizerFile& file, const std::string& name, TextToId& ids,
                      Parts& parts) {
  AddedTokenGroup raw;
  AddedTokenGroup normalized;
  int64_t largest = -1;  // of the added tokens
  const auto num_model_tokens = static_cast<int64_t>(file.vocab.size());
  std::string storage;
  for (const AddedToken& token : file.added_tokens) {
    check_added_token(token, std::max(largest + 1, num_model_tokens), ids, parts.bytes, name);
    largest = std::max<int64_t>(largest, token.id);
    ids.emplace(token.content, token.id);
    if (token.special) {
      parts.special.resize(std::max(parts.special.size(), static_cast<size_t>(token.id) + 1));
      parts.special[token.id] = true;
    }
    AddedTokenGroup& group = token.normalized ? normalized : raw;
    group.tokens.push_back(token);
    const bool changes = token.normalized && file.normalizes_nfc;
    group.contents.emplace_back(changes ? normalize_nfc(token.content, storage) : token.content);
    parts.bytes.set(token.id, alphabet_to_bytes(group.contents.back()));
  }
  parts.raw_tokens = raw.make_finder();
  parts.normalized_tokens = normalized.make_finder();
}

// The token under `key` of a tokenizer_config.json: a string, or an object with its content.
std::optional<int32_t> read_config_token(const Json& config, const std::string& key,
                                         const TextToId& ids, const std::string& name) {
  if (!config.contains(key) || config[key].is_null()) return std::nullopt;
  const Json& value = config[key];
  const Json& content = value.is_object() && value.contains("content") ? value["content"] : value;
  MT_CHECK_INPUT(content.is_string(), name, ": ", key,
                 " is neither a string nor a token with a content");
  const auto found = ids.find(content.get<std::string>());
  MT_CHECK_INPUT(found != ids.end(), name, ": ", key, " (\"", content.get<std::string>(),
                 "\") is not a token of the tokenizer.json beside it");
  return found->second;
}

bool read_config_flag(const Json& config, const std::string& key, const std::string& name) {
  if (!config.contains(key) || config[key].is_null()) return false;
  MT_CHECK_INPUT(config[key].is_boolean(), name, ": ", key, " is not true or false");
  return config[key].get<bool>();
}

template <class Parts>
void read_config(const fs::path& path, const TextToId& ids, Parts& parts) {
  const std::string name = path.string();
  const Json config = read_json(path);
  MT_CHECK_INPUT(config.is_object(), name, " is not an object");
  const auto bos = read_config_token(config, "bos_token", ids, name);
  const auto eos = read_config_token(config, "eos_token", ids, name);
  if (eos) parts.eos = eos;
  // The Hugging Face classes add these themselves where the template does not.
  if (bos && read_config_flag(config, "add_bos_token", name) &&
      (parts.prefix.empty() || parts.prefix.front() != *bos)) {
    parts.prefix.insert(parts.prefix.begin(), *bos);
  }
  if (eos && read_config_flag(config, "add_eos_token", name) &&
      (parts.suffix.empty() || parts.suffix.back() != *eos)) {
    parts.suffix.push_back(*eos);
  }
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::load(const fs::path& path) {
  std::error_code error;
  const fs::path file_path = fs::is_directory(path, error) ? path / "tokenizer.json" : path;
  const std::string name = file_path.string();
  TokenizerFile file = parse_tokenizer_file(MappedFile(file_path).text(), name);
  auto parts = std::make_unique<Parts>();
  TextToId ids;  // as written in the file
  ids.reserve(file.vocab.size() + file.added_tokens.size());
  for (const auto& [token, id] : file.vocab) {
    ids.emplace(token, id);
    parts->bytes.set(id, alphabet_to_bytes(token));
  }
  parts->base_vocab_size = parts->bytes.size();
  parts->bpe = make_bpe(file, ids, name);
  set_added_tokens(file, name, ids, *parts);
  parts->normalizes_nfc = file.normalizes_nfc;
  parts->stages = std::move(file.stages);
  for (const auto* around : {&file.prefix, &file.suffix}) {
    for (const int32_t id : *around) {
      MT_CHECK_INPUT(parts->bytes.contains(id), name, ": post_processor adds the id ", id,
                     ", which no token has");
    }
  }
  parts->prefix = std::move(file.prefix);
  parts->suffix = std::move(file.suffix);
  const auto usual_end = ids.find(kUsualEnd);
  if (usual_end != ids.end()) parts->eos = usual_end->second;
  if (!parts->suffix.empty()) parts->eos = parts->suffix.back();
  const fs::path config_path = file_path.parent_path() / "tokenizer_config.json";
  if (fs::exists(config_path, error)) read_config(config_path, ids, *parts);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

}  // namespace moetron
