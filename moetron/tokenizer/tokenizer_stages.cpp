#include "moetron/tokenizer/tokenizer_stages.h"

#include <algorithm>
#include <array>
#include <functional>
#include <span>
#include <utility>

#include "moetron/tokenizer/byte_alphabet.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr size_t kMaxLength = size_t{1} << 30;

constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors{
    {{"Removed", SplitBehavior::kRemoved},
     {"Isolated", SplitBehavior::kIsolated},
     {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
     {"MergedWithNext", SplitBehavior::kMergedWithNext},
     {"Contiguous", SplitBehavior::kContiguous}}};
constexpr std::array<std::pair<std::string_view, NormalForm>, 4> kNormalForms{
    {{"NFC", NormalForm::kNfc},
     {"NFD", NormalForm::kNfd},
     {"NFKC", NormalForm::kNfkc},
     {"NFKD", NormalForm::kNfkd}}};

// {"Regex": "..."} or {"String": "..."}
Pattern read_pattern(const JsonReader& owner, const std::string& name) {
  const JsonReader pattern = owner.at("pattern");
  const auto regex = pattern.find("Regex");
  return {regex ? regex->string() : pattern.at("String").string(), !regex, name};
}

SplitBehavior read_behavior(const JsonReader& owner, std::string_view behavior) {
  for (const auto& [known, value] : kBehaviors)
    if (behavior == known) return value;
  owner.require(false, "has the behavior ", behavior,
                "; there are Removed, Isolated, MergedWithPrevious, MergedWithNext and Contiguous");
  return SplitBehavior::kIsolated;
}

// A text of one character.
std::string read_character(const JsonReader& owner, std::string_view key) {
  const JsonReader value = owner.at(key);
  const std::string text(value.string());
  value.require(!text.empty() && decode_utf8(text.data()).length == text.size(), "(\"", text,
                "\") is not one character");
  return text;
}

MetaspaceStage read_metaspace(const JsonReader& stage) {
  using Prepend = MetaspaceStage::Prepend;
  MetaspaceStage metaspace{read_character(stage, "replacement")};
  const auto scheme = stage.find("prepend_scheme");
  if (scheme) {
    const std::string_view text = scheme->string();
    scheme->require(text == "always" || text == "first" || text == "never", "is ", text,
                    "; there are always, first and never");
    metaspace.prepend = text == "always"  ? Prepend::kAlways
                        : text == "first" ? Prepend::kFirst
                                          : Prepend::kNever;
  }
  if (!stage.flag("add_prefix_space", true)) {
    stage.require(!scheme || metaspace.prepend == Prepend::kNever,
                  "has add_prefix_space false and prepend_scheme ", scheme ? scheme->string() : "",
                  ", which say two things");
    metaspace.prepend = Prepend::kNever;
  }
  metaspace.splits = stage.flag("split", true);
  return metaspace;
}

SplitStage of_set(const CharSet& set, SplitBehavior behavior) {
  return {CharMatcher(set), behavior, false};
}

CharSet one_character(std::string_view text) {
  const char32_t c = decode_utf8(text.data()).value;
  return CharSet({{c, c}});
}

class PreTokenizerReader {
 public:
  PreTokenizerReader(const std::string& name, std::vector<PreTokenizerStage>& stages)
      : name_(name), stages_(stages) {}

  void read(const JsonReader& stage) {
    const std::string_view type = stage.type();
    if (type == "Sequence") {
      for (const JsonReader& member : stage.at("pretokenizers").members()) read(member);
    } else if (type == "Split") {
      stages_.emplace_back(SplitStage{read_pattern(stage, name_),
                                      read_behavior(stage, stage.at("behavior").string()),
                                      stage.flag("invert", false)});
    } else if (type == "ByteLevel") {
      if (stage.flag("add_prefix_space", true)) stages_.emplace_back(PrefixSpaceStage{});
      if (stage.flag("use_regex", true)) stages_.emplace_back(WordMatcher::kGpt2);
      stages_.emplace_back(ByteAlphabetStage{});
    } else if (type == "Metaspace") {
      stages_.emplace_back(read_metaspace(stage));
    } else {
      read_simple(stage, type);
    }
  }

 private:
  void read_simple(const JsonReader& stage, std::string_view type) {
    if (type == "Digits") {
      const bool is_individual = stage.flag("individual_digits", false);
      stages_.emplace_back(of_set(
          number_set(), is_individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
    } else if (type == "Punctuation") {
      const auto behavior = stage.find("behavior");
      stages_.emplace_back(of_set(punctuation_set(), behavior
                                                         ? read_behavior(stage, behavior->string())
                                                         : SplitBehavior::kIsolated));
    } else if (type == "WhitespaceSplit") {
      stages_.emplace_back(of_set(space_set(), SplitBehavior::kRemoved));
    } else if (type == "Whitespace") {
      // Of the regex crate, whose \w has joiners.
      Pattern pattern(R"([\w\u200c\u200d]+|[^\w\s\u200c\u200d]+)", false, name_);
      stages_.emplace_back(SplitStage{std::move(pattern), SplitBehavior::kRemoved, true});
    } else if (type == "BertPreTokenizer") {
      stages_.emplace_back(of_set(space_set(), SplitBehavior::kRemoved));
      stages_.emplace_back(of_set(punctuation_set(), SplitBehavior::kIsolated));
    } else if (type == "CharDelimiterSplit") {
      stages_.emplace_back(
          of_set(one_character(read_character(stage, "delimiter")), SplitBehavior::kRemoved));
    } else {
      stage.require(
          type == "FixedLength", "is of type ", type,
          "; Moetron knows ByteLevel, Metaspace, Split, Digits, Punctuation, Whitespace, "
          "WhitespaceSplit, BertPreTokenizer, CharDelimiterSplit, FixedLength and Sequence");
      const auto length = stage.find("length");
      const int64_t characters = length ? length->integer(kMaxLength) : 5;
      stage.require(characters > 0, "has the length 0");
      stages_.emplace_back(FixedLengthStage{static_cast<size_t>(characters)});
    }
  }

  const std::string& name_;
  std::vector<PreTokenizerStage>& stages_;
};

// Puts hand-written matchers in the place of the patterns that they know.
void use_word_matchers(std::vector<PreTokenizerStage>& stages) {
  std::vector<PreTokenizerStage> used;
  for (size_t i = 0; i < stages.size();) {
    std::vector<std::string_view> patterns;  // from here on
    std::optional<WordMatcher> matcher;
    for (size_t k = i; k < stages.size() && !matcher; ++k) {
      const auto* stage = std::get_if<SplitStage>(&stages[k]);
      const auto* pattern = stage == nullptr ? nullptr : std::get_if<Pattern>(&stage->matcher);
      if (pattern == nullptr || pattern->is_literal()) break;
      // Where gaps are thrown away, a pattern by itself will do: those that are known have none.
      const bool drops_gaps =
          k == i && stage->behavior == SplitBehavior::kRemoved && stage->is_inverted;
      if (stage->behavior != SplitBehavior::kIsolated && !drops_gaps) break;
      patterns.push_back(pattern->text());
      matcher = find_word_matcher(patterns);
      if (drops_gaps) break;
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

// Then no piece in the byte alphabet has anything unknown.
bool has_all_bytes(std::span<const std::pair<std::string, int32_t>> vocab) {
  std::array<bool, 256> has{};
  for (const auto& [token, id] : vocab) {
    const Character c = token.empty() ? Character{0, 0} : decode_utf8(token.data());
    const std::string bytes = c.length == token.size() ? alphabet_to_bytes(token) : std::string();
    if (bytes.size() == 1 && is_alphabet_token(token)) has[static_cast<uint8_t>(bytes[0])] = true;
  }
  return std::ranges::all_of(has, std::identity());
}

class DecoderReader {
 public:
  DecoderReader(const std::string& name, std::vector<DecoderStep>& steps)
      : name_(name), steps_(steps) {}

  void read(const JsonReader& decoder) {
    const std::string_view type = decoder.type();
    if (type == "Sequence") {
      for (const JsonReader& member : decoder.at("decoders").members()) read(member);
    } else if (type == "ByteLevel") {
      steps_.emplace_back(ByteLevelDecoder{});
    } else if (type == "ByteFallback") {
      steps_.emplace_back(ByteFallbackDecoder{});
    } else if (type == "Fuse") {
      steps_.emplace_back(FuseDecoder{});
    } else if (type == "Replace") {
      steps_.emplace_back(
          ReplaceStep{read_pattern(decoder, name_), std::string(decoder.at("content").string())});
    } else if (type == "Strip") {
      const auto count = [&](std::string_view key) {
        return static_cast<size_t>(decoder.at(key).integer(kMaxLength));
      };
      steps_.emplace_back(
          StripDecoder{read_character(decoder, "content"), count("start"), count("stop")});
    } else if (type == "Metaspace") {
      const MetaspaceStage metaspace = read_metaspace(decoder);
      steps_.emplace_back(MetaspaceDecoder{metaspace.replacement,
                                           metaspace.prepend != MetaspaceStage::Prepend::kNever});
    } else {
      decoder.require(type == "BPEDecoder", "is of type ", type,
                      "; Moetron knows ByteLevel, ByteFallback, Metaspace, BPEDecoder, Fuse, "
                      "Replace, Strip and Sequence");
      const JsonReader suffix = decoder.at("suffix");
      suffix.require(!suffix.string().empty(), "is empty");
      steps_.emplace_back(SuffixDecoder{std::string(suffix.string())});
    }
  }

 private:
  const std::string& name_;
  std::vector<DecoderStep>& steps_;
};

}  // namespace

void read_normalizer(const JsonReader& reader, const std::string& name, Normalizer& normalizer) {
  const std::string_view type = reader.type();
  if (type == "Sequence") {
    for (const JsonReader& member : reader.at("normalizers").members())
      read_normalizer(member, name, normalizer);
    return;
  }
  for (const auto& [known, form] : kNormalForms)
    if (type == known) return normalizer.add(form);
  if (type == "Lowercase") return normalizer.add(LowercaseStep{});
  if (type == "ByteLevel") return normalizer.add(ByteAlphabetStep{});
  if (type == "Strip")
    return normalizer.add(
        StripStep{reader.flag("strip_left", true), reader.flag("strip_right", true)});
  if (type == "Prepend")
    return normalizer.add(PrependStep{std::string(reader.at("prepend").string())});
  reader.require(type == "Replace", "is of type ", type,
                 "; Moetron knows NFC, NFD, NFKC, NFKD, Lowercase, Replace, Strip, Prepend, "
                 "ByteLevel and Sequence");
  normalizer.add(
      ReplaceStep{read_pattern(reader, name), std::string(reader.at("content").string())});
}

void read_pre_tokenizer(const std::optional<JsonReader>& reader, const std::string& name,
                        TokenizerFile& file) {
  if (reader) PreTokenizerReader(name, file.stages).read(*reader);
  // A byte alphabet that nothing else sees is not written: pieces are merged from their bytes.
  const auto is_alphabet = [](const PreTokenizerStage& stage) {
    return std::holds_alternative<ByteAlphabetStage>(stage);
  };
  const bool knows_all =
      (!file.characters.byte_fallback && file.unknown.empty()) || has_all_bytes(file.vocab);
  const bool is_plain =
      knows_all && file.characters.prefix.empty() && file.characters.suffix.empty();
  file.is_byte_level = is_plain && !file.stages.empty() && is_alphabet(file.stages.back()) &&
                       std::ranges::count_if(file.stages, is_alphabet) == 1;
  if (file.is_byte_level) file.stages.pop_back();
  use_word_matchers(file.stages);
}

void read_decoder(const std::optional<JsonReader>& reader, const std::string& name,
                  TokenizerFile& file) {
  std::vector<DecoderStep> steps;
  if (reader) DecoderReader(name, steps).read(*reader);
  // A file of bytes without a decoder is decoded as bytes too: the library would leave the byte
  // alphabet.
  const bool is_bytes =
      steps.empty() ? file.is_byte_level
                    : steps.size() == 1 && std::holds_alternative<ByteLevelDecoder>(steps[0]);
  if (!is_bytes) file.decoder = std::move(steps);
}

}  // namespace moetron
