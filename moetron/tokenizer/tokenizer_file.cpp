#include "moetron/tokenizer/tokenizer_file.h"

#include <unordered_set>

#include "moetron/base/error.h"
#include "moetron/tokenizer/json_reader.h"

namespace moetron {
namespace {

// A key that must be absent, null, false, zero or empty, for it changes what BPE does.
void require_unset(const JsonReader& model, std::string_view key) {
  const auto value = model.find(key);
  if (!value) return;
  if (key == "dropout") return value->require(value->number() == 0, "is not supported");
  if (key == "byte_fallback") {
    return value->require(!model.flag(key, false), "is not supported: bytes are tokens here");
  }
  value->require(value->string().empty(), "(\"", value->string(), "\") is not supported");
}

void read_vocab(const JsonReader& vocab, TokenizerFile& file) {
  std::unordered_set<std::string_view> tokens;
  std::vector<bool> is_taken;
  for (const auto& [token, element] : vocab.object()) {
    // The place is put into words only where something is wrong, for there are many tokens.
    int64_t id = -1;
    vocab.require(element.get(id) == simdjson::SUCCESS && id >= 0 && id < kMaxTokens, "gives \"",
                  token, "\" an id that is not an integer below ", kMaxTokens);
    vocab.require(tokens.insert(token).second, "holds \"", token, "\" twice");
    if (static_cast<size_t>(id) >= is_taken.size()) is_taken.resize(id + id / 2 + 1);
    vocab.require(!is_taken[id], "gives the id ", id, " to two tokens, one of them \"", token,
                  "\"");
    is_taken[id] = true;
    file.vocab.emplace_back(token, static_cast<int32_t>(id));
  }
}

// "a b" or ["a", "b"].
void read_merges(const JsonReader& merges, TokenizerFile& file) {
  for (const simdjson::dom::element merge : merges.array()) {
    const auto refuse = [&] {
      merges.require(false, "holds as number ", file.merges.size(),
                     " neither \"A B\" nor [\"A\", \"B\"]");
    };
    std::string_view text;
    simdjson::dom::array pair;
    if (merge.get(text) == simdjson::SUCCESS) {
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != text.npos) refuse();
      file.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    } else if (merge.get(pair) == simdjson::SUCCESS && pair.size() == 2) {
      std::string_view left;
      std::string_view right;
      if (pair.at(0).get(left) != simdjson::SUCCESS) refuse();
      if (pair.at(1).get(right) != simdjson::SUCCESS) refuse();
      file.merges.emplace_back(left, right);
    } else {
      refuse();
    }
  }
}

void read_model(const JsonReader& model, TokenizerFile& file) {
  // Old files of BPE models leave the type out.
  const std::string type(model.find("type") ? model.type() : "BPE");
  model.require(type == "BPE", "is of type ", type, "; Moetron reads byte-level BPE");
  for (const std::string_view key : {"dropout", "unk_token", "continuing_subword_prefix",
                                     "end_of_word_suffix", "byte_fallback"}) {
    require_unset(model, key);
  }
  file.ignore_merges = model.flag("ignore_merges", false);
  read_vocab(model.at("vocab"), file);
  read_merges(model.at("merges"), file);
}

void read_added_tokens(const JsonReader& tokens, TokenizerFile& file) {
  for (const simdjson::dom::element element : tokens.array()) {
    const JsonReader token = tokens.inside(element, std::to_string(file.added_tokens.size()));
    AddedToken& added = file.added_tokens.emplace_back();
    added.content = token.at("content").string();
    added.id = static_cast<int32_t>(token.at("id").integer(kMaxTokens));
    added.single_word = token.flag("single_word", false);
    added.lstrip = token.flag("lstrip", false);
    added.rstrip = token.flag("rstrip", false);
    added.special = token.flag("special", false);
    added.normalized = token.flag("normalized", !added.special);
  }
}

void read_normalizer(const JsonReader& normalizer, TokenizerFile& file) {
  const std::string_view type = normalizer.type();
  if (type == "Sequence") {
    const JsonReader members = normalizer.at("normalizers");
    for (const simdjson::dom::element member : members.array()) {
      read_normalizer(members.inside(member, "member"), file);
    }
    return;
  }
  normalizer.require(type == "NFC", "is of type ", type, "; Moetron knows NFC");
  file.normalizes_nfc = true;
}

void read_split(const JsonReader& split, TokenizerFile& file, const std::string& name) {
  const std::string_view behavior = split.at("behavior").string();
  split.require(behavior == "Isolated" || behavior == "Removed", "has the behavior ", behavior,
                "; Moetron knows Isolated and Removed");
  const bool is_inverted = split.flag("invert", false);
  const bool keeps_all = behavior == "Isolated";
  const JsonReader pattern = split.at("pattern");
  const auto regex = pattern.find("Regex");
  const std::string_view text = regex ? regex->string() : pattern.at("String").string();
  file.stages.emplace_back(PatternStage{Pattern(text, !regex, name), keeps_all || is_inverted,
                                        keeps_all || !is_inverted});
}

// Puts hand-written matchers in the place of the patterns that they know.
void use_word_matchers(std::vector<PreTokenizerStage>& stages) {
  std::vector<PreTokenizerStage> used;
  for (size_t i = 0; i < stages.size();) {
    std::vector<std::string_view> patterns;  // from here on
    std::optional<WordMatcher> matcher;
    for (size_t k = i; k < stages.size() && !matcher; ++k) {
      const auto* stage = std::get_if<PatternStage>(&stages[k]);
      if (stage == nullptr || stage->pattern.is_literal() || !stage->keeps_gaps ||
          !stage->keeps_matches)
        break;
      patterns.push_back(stage->pattern.text());
      matcher = find_word_matcher(patterns);
    }
    if (matcher) {
      used.emplace_back(*matcher);
      i += patterns.size();
    } else {
      used.push_back(std::move(stages[i++]));
    }
  }
  stages = std::move(used);
}

// ByteLevel comes last, for what follows it would see the byte alphabet instead of text.
void read_pre_tokenizer(const JsonReader& stage, TokenizerFile& file, bool& has_byte_level,
                        const std::string& name) {
  stage.require(!has_byte_level, "follows ByteLevel, which must be the last");
  const std::string_view type = stage.type();
  if (type == "Sequence") {
    const JsonReader members = stage.at("pretokenizers");
    size_t number = 0;
    for (const simdjson::dom::element member : members.array()) {
      read_pre_tokenizer(members.inside(member, std::to_string(number++)), file, has_byte_level,
                         name);
    }
  } else if (type == "Split") {
    read_split(stage, file, name);
  } else if (type == "Digits") {
    file.stages.emplace_back(DigitStage{stage.flag("individual_digits", false)});
  } else {
    stage.require(type == "ByteLevel", "is of type ", type,
                  "; Moetron knows ByteLevel, Split, Digits and Sequence");
    if (stage.flag("add_prefix_space", true)) file.stages.emplace_back(PrefixSpaceStage{});
    if (stage.flag("use_regex", true)) file.stages.emplace_back(WordMatcher::kGpt2);
    has_byte_level = true;
  }
}

// {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
//  "special_tokens": {"<s>": {"ids": [1]}}}
void read_template(const JsonReader& processor, TokenizerFile& file) {
  const JsonReader single = processor.at("single");
  bool is_behind = false;
  for (const simdjson::dom::element element : single.array()) {
    const JsonReader piece = single.inside(element, "member");
    if (piece.find("Sequence")) {
      piece.require(!is_behind, "is a second sequence");
      is_behind = true;
      continue;
    }
    const std::string_view token = piece.at("SpecialToken").at("id").string();
    const JsonReader ids = processor.at("special_tokens").at(token).at("ids");
    for (const simdjson::dom::element id : ids.array()) {
      const int64_t value = ids.inside(id, "member").integer(kMaxTokens);
      (is_behind ? file.suffix : file.prefix).push_back(static_cast<int32_t>(value));
    }
  }
  single.require(is_behind, "has no sequence");
}

void read_post_processor(const JsonReader& processor, TokenizerFile& file) {
  const std::string_view type = processor.type();
  if (type == "Sequence") {
    const JsonReader members = processor.at("processors");
    for (const simdjson::dom::element member : members.array()) {
      read_post_processor(members.inside(member, "member"), file);
    }
  } else if (type == "TemplateProcessing") {
    processor.require(file.prefix.empty() && file.suffix.empty(), "is a second template");
    read_template(processor, file);
  } else {
    // ByteLevel moves offsets only.
    processor.require(type == "ByteLevel", "is of type ", type,
                      "; Moetron knows TemplateProcessing, ByteLevel and Sequence");
  }
}

void check_decoder(const JsonReader& decoder) {
  if (decoder.type() == "Sequence") {
    const JsonReader members = decoder.at("decoders");
    members.require(members.array().size() == 1, "has more or fewer than one member");
    return check_decoder(members.inside(*members.array().begin(), "0"));
  }
  decoder.require(decoder.type() == "ByteLevel", "is of type ", decoder.type(),
                  "; Moetron knows ByteLevel");
}

}  // namespace

TokenizerFile parse_tokenizer_file(std::string_view text, const std::string& name) {
  MT_CHECK_INPUT(!text.empty(), name, " is empty");
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const auto error = parser.parse(text.data(), text.size()).get(root);
  MT_CHECK_INPUT(error == simdjson::SUCCESS, name, " (", text.size(),
                 " bytes) is not JSON: ", simdjson::error_message(error));
  TokenizerFile file;
  const JsonReader reader(root, name + ":");
  read_model(reader.at("model"), file);
  if (const auto tokens = reader.find("added_tokens")) read_added_tokens(*tokens, file);
  if (const auto normalizer = reader.find("normalizer")) read_normalizer(*normalizer, file);
  bool has_byte_level = false;
  read_pre_tokenizer(reader.at("pre_tokenizer"), file, has_byte_level, name);
  use_word_matchers(file.stages);
  reader.require(has_byte_level, "pre_tokenizer has no ByteLevel; Moetron reads byte-level BPE");
  if (const auto post = reader.find("post_processor")) read_post_processor(*post, file);
  // A file without a decoder is decoded as bytes too: the library would leave the byte alphabet.
  if (const auto decoder = reader.find("decoder")) check_decoder(*decoder);
  return file;
}

}  // namespace moetron
