#include <algorithm>
#include <array>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/path.h"
#include "moetron/tokenizer/byte_alphabet.h"
#include "moetron/tokenizer/sentencepiece_file.h"
#include "moetron/tokenizer/tiktoken_file.h"
#include "moetron/tokenizer/tokenizer.h"
#include "moetron/tokenizer/tokenizer_config.h"
#include "moetron/tokenizer/tokenizer_file.h"
#include "moetron/tokenizer/tokenizer_parts.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kUsualEnd = "<|endoftext|>";

static_assert(kMaxTokens == int64_t{1} << MergeTable::kIdBits);

std::vector<MergeRule> read_rules(const TokenizerFile& file, const TextToId& ids,
                                  const std::string& name) {
  const auto id_of = [&](const std::string& token, size_t rank) {
    const auto found = ids.find(token);
    MT_CHECK_INPUT(found != ids.end(), name, ": merge ", rank, " names the token \"", token,
                   "\", which is not in the vocabulary");
    return found->second;
  };
  MT_CHECK_INPUT(file.merges.size() < MergeTable::kNoRank, name, ": model.merges holds ",
                 file.merges.size(), " merges; Moetron reads fewer than ", MergeTable::kNoRank);
  std::vector<MergeRule> rules;
  rules.reserve(file.merges.size());
  const size_t prefix = file.characters.prefix.size();
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    const auto& [left, right] = file.merges[rank];
    MT_CHECK_INPUT(right.size() >= prefix, name, ": merge ", rank, " has \"", right,
                   "\", which is shorter than the prefix \"", file.characters.prefix, "\"");
    const int32_t left_id = id_of(left, rank);
    const int32_t right_id = id_of(right, rank);
    rules.push_back({left_id, right_id, id_of(left + right.substr(prefix), rank)});
  }
  return rules;
}

Bpe make_bpe(const TokenizerFile& file, const TextToId& ids, const std::string& name) {
  const std::vector<MergeRule> rules = read_rules(file, ids, name);
  TextToId whole_pieces;
  if (!file.is_byte_level) {
    if (file.ignore_merges) whole_pieces = ids;
    CharUnitOptions options = file.characters;
    if (!file.unknown.empty()) {
      const auto found = ids.find(file.unknown);
      MT_CHECK_INPUT(found != ids.end(), name, ": model.unk_token names the token \"", file.unknown,
                     "\", which is not in the vocabulary");
      options.unknown = found->second;
    }
    return {CharUnits(ids, std::move(options)), rules, whole_pieces};
  }
  std::array<int32_t, 256> byte_ids;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(alphabet_character(static_cast<uint8_t>(byte)));
    byte_ids[byte] = found != ids.end() ? found->second : -1;
  }
  if (file.ignore_merges) {
    for (const auto& [token, id] : file.vocab) {
      if (is_alphabet_token(token)) whole_pieces.emplace(alphabet_to_bytes(token), id);
    }
  }
  return {byte_ids, rules, whole_pieces};
}

// Where SentencePiece's mark of a space begins a token unless another mark is before it, no merge
// crosses the place in front of it: a text, which is one piece there, may be cut so into words.
bool may_cut_at_marks(const TokenizerFile& file) {
  if (file.is_byte_level || file.ignore_merges || !file.characters.prefix.empty() ||
      !file.characters.suffix.empty()) {
    return false;
  }
  const bool has_mark =
      std::ranges::any_of(file.vocab, [](const auto& token) { return token.first == kSpaceMark; });
  return has_mark && std::ranges::none_of(file.merges, [](const auto& merge) {
           return merge.second.starts_with(kSpaceMark) && !merge.first.ends_with(kSpaceMark);
         });
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

// As decoding needs them.
std::string token_bytes(const std::string& token, const TokenizerFile& file) {
  return file.decoder ? token : alphabet_to_bytes(token);
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
  for (const AddedToken& token : file.added_tokens) {
    const int64_t next_id = file.has_own_ids ? token.id : std::max(largest + 1, num_model_tokens);
    check_added_token(token, next_id, ids, parts.bytes, name);
    largest = std::max<int64_t>(largest, token.id);
    ids.emplace(token.content, token.id);
    AddedTokenGroup& group = token.normalized ? normalized : raw;
    group.tokens.push_back(token);
    const bool changes = token.normalized && !file.has_written_contents;
    group.contents.push_back(changes ? file.normalizer.normalized(token.content) : token.content);
    parts.bytes.set(token.id, token_bytes(group.contents.back(), file));
    // In the library a special token that normalisation changes is not known for one by its text.
    if (token.special && group.contents.back() == token.content) {
      parts.special.resize(std::max(parts.special.size(), static_cast<size_t>(token.id) + 1));
      parts.special[token.id] = true;
    }
  }
  parts.raw_tokens = raw.make_finder();
  parts.normalized_tokens = normalized.make_finder();
}

std::optional<int32_t> find_token(const std::optional<std::string>& content, const TextToId& ids) {
  if (!content) return std::nullopt;
  const auto found = ids.find(*content);
  return found == ids.end() ? std::nullopt : std::optional<int32_t>(found->second);
}

// The tokens that begin and end a text.
template <class Parts>
void set_ends(const TokenizerFile& file, const TokenizerConfig& config, const TextToId& ids,
              const std::string& name, Parts& parts) {
  for (const auto* around : {&file.prefix, &file.suffix}) {
    for (const int32_t id : *around) {
      MT_CHECK_INPUT(parts.bytes.contains(id), name, ": post_processor adds the id ", id,
                     ", which no token has");
    }
  }
  const std::optional<int32_t> bos = find_token(config.bos, ids);
  parts.bos = bos ? bos : file.bos;
  parts.eos = find_token(std::string(kUsualEnd), ids);
  if (file.eos) parts.eos = file.eos;
  if (!file.suffix.empty()) parts.eos = file.suffix.back();
  if (const std::optional<int32_t> eos = find_token(config.eos, ids)) parts.eos = eos;
  parts.prefix = file.prefix;
  parts.suffix = file.suffix;
  if (file.has_processor) return;
  if (config.adds_bos && parts.bos) parts.prefix.push_back(*parts.bos);
  if (config.adds_eos && parts.eos) parts.suffix.push_back(*parts.eos);
}

TokenizerFile parse_file(const fs::path& path, const std::string& name) {
  const MappedFile file(path);
  const std::string_view text = file.text();
  if (path.extension() == ".tiktoken" || (path.extension() == ".model" && is_tiktoken(text)))
    return parse_tiktoken_file(text, name);
  if (path.extension() == ".model") return parse_sentencepiece_file(text, name);
  return parse_tokenizer_file(text, name);
}

}  // namespace

fs::path Tokenizer::find(const fs::path& folder) {
  if (path_exists(folder / "tokenizer.json")) return folder / "tokenizer.json";
  std::vector<fs::path> found;
  if (is_folder(folder)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".tiktoken") found.push_back(entry.path());
  }
  MT_CHECK_INPUT(found.size() < 2, folder.string(), " holds ", found.size(),
                 " files that end with .tiktoken; name one of them");
  if (!found.empty()) return found[0];
  for (const char* name : {"tiktoken.model", "tokenizer.model"})
    if (path_exists(folder / name)) return folder / name;
  return {};
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const fs::path& path) {
  const fs::path file_path = is_folder(path) ? find(path) : path;
  MT_CHECK_INPUT(!file_path.empty(), path.string(),
                 " holds no tokenizer.json, no vocabulary of tiktoken and no tokenizer.model");
  const std::string name = file_path.string();
  TokenizerFile file = parse_file(file_path, name);
  const TokenizerConfig config = read_tokenizer_config(file_path.parent_path());
  add_config_tokens(config, file);
  auto parts = std::make_unique<Parts>();
  TextToId ids;  // as written in the file
  ids.reserve(file.vocab.size() + file.added_tokens.size());
  for (const auto& [token, id] : file.vocab) {
    ids.emplace(token, id);
    parts->bytes.set(id, token_bytes(token, file));
  }
  parts->base_vocab_size = parts->bytes.size();
  parts->bpe = make_bpe(file, ids, name);
  set_added_tokens(file, name, ids, *parts);
  if (may_cut_at_marks(file)) file.stages.emplace_back(MarkStage{std::string(kSpaceMark)});
  parts->normalizer = std::move(file.normalizer);
  parts->stages = std::move(file.stages);
  parts->decoder = std::move(file.decoder);
  set_ends(file, config, ids, name, *parts);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

}  // namespace moetron
