#include "moetron/tokenizer/tokenizer_file.h"

#include <unordered_set>

#include "moetron/base/error.h"
#include "moetron/tokenizer/json_reader.h"
#include "moetron/tokenizer/tokenizer_stages.h"

namespace moetron {
namespace {

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
  model.require(type == "BPE", "is of type ", type, "; Moetron reads BPE");
  if (const auto dropout = model.find("dropout"))
    dropout->require(dropout->number() == 0, "is not supported: it must be null or 0");
  const auto text_of = [&](std::string_view key) {
    const auto value = model.find(key);
    return value ? std::string(value->string()) : std::string();
  };
  file.characters.prefix = text_of("continuing_subword_prefix");
  file.characters.suffix = text_of("end_of_word_suffix");
  file.characters.fuses_unknown = model.flag("fuse_unk", false);
  file.characters.byte_fallback = model.flag("byte_fallback", false);
  file.unknown = text_of("unk_token");
  file.ignore_merges = model.flag("ignore_merges", false);
  read_vocab(model.at("vocab"), file);
  read_merges(model.at("merges"), file);
}

void read_added_tokens(const JsonReader& tokens, TokenizerFile& file) {
  for (const JsonReader& token : tokens.members()) {
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

// {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
//  "special_tokens": {"<s>": {"ids": [1]}}}
void read_template(const JsonReader& processor, TokenizerFile& file) {
  const JsonReader single = processor.at("single");
  bool is_behind = false;
  for (const JsonReader& piece : single.members()) {
    if (piece.find("Sequence")) {
      piece.require(!is_behind, "is a second sequence");
      is_behind = true;
      continue;
    }
    const std::string_view token = piece.at("SpecialToken").at("id").string();
    for (const JsonReader& id : processor.at("special_tokens").at(token).at("ids").members())
      (is_behind ? file.suffix : file.prefix)
          .push_back(static_cast<int32_t>(id.integer(kMaxTokens)));
  }
  single.require(is_behind, "has no sequence");
}

// {"cls": ["<s>", 0], "sep": ["</s>", 2]}
int32_t read_end(const JsonReader& processor, std::string_view key) {
  const JsonReader pair = processor.at(key);
  const std::vector<JsonReader> values = pair.members();
  pair.require(values.size() == 2, "is not a token and its id");
  return static_cast<int32_t>(values[1].integer(kMaxTokens));
}

void read_post_processor(const JsonReader& processor, TokenizerFile& file) {
  const std::string_view type = processor.type();
  if (type == "Sequence") {
    for (const JsonReader& member : processor.at("processors").members())
      read_post_processor(member, file);
    return;
  }
  if (type == "ByteLevel") return;  // it moves offsets only
  processor.require(file.prefix.empty() && file.suffix.empty(),
                    "is a second one that adds tokens, to each part of what the first made");
  if (type == "TemplateProcessing") return read_template(processor, file);
  processor.require(type == "RobertaProcessing" || type == "BertProcessing", "is of type ", type,
                    "; Moetron knows TemplateProcessing, RobertaProcessing, BertProcessing, "
                    "ByteLevel and Sequence");
  file.prefix.push_back(read_end(processor, "cls"));
  file.suffix.push_back(read_end(processor, "sep"));
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
  if (const auto normalizer = reader.find("normalizer"))
    read_normalizer(*normalizer, name, file.normalizer);
  read_pre_tokenizer(reader.find("pre_tokenizer"), name, file);
  if (const auto post = reader.find("post_processor")) read_post_processor(*post, file);
  read_decoder(reader.find("decoder"), name, file);
  return file;
}

}  // namespace moetron
