#include "moetron/tokenizer/sentencepiece_file.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/tokenizer/derived_merges.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr size_t kMaxPieceBytes = 4096;

enum PieceType : uint64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct Piece {
  std::string text;
  float score = 0;
  uint64_t type = kNormal;
};

// One message of protobuf, field by field (https://protobuf.dev/programming-guides/encoding).
class MessageReader {
 public:
  MessageReader(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  // False at the end; else `field` says which it is, and number(), text() or scalar() its value.
  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t key = varint();
    field = key >> 3;
    kind_ = key & 7;
    switch (kind_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        text_ = take(8);
        break;
      case 2:
        text_ = take(varint());
        break;
      default:
        require(kind_ == 5, "has a field of an unknown kind");
        text_ = take(4);
    }
    return true;
  }

  uint64_t number() const { return expect(0), number_; }
  std::string_view text() const { return expect(2), text_; }
  float scalar() const {
    expect(5);
    static_assert(std::endian::native == std::endian::little);
    float value = 0;
    std::memcpy(&value, text_.data(), sizeof(value));
    return value;
  }

  void require(bool is_right, std::string_view cause) const {
    MT_CHECK_INPUT(is_right, name_, " is no SentencePiece model that Moetron reads: it ", cause);
  }

  uint64_t field = 0;

 private:
  void expect(uint64_t kind) const { require(kind_ == kind, "has a field of another type"); }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    require(false, "has a number that is too long");
    return 0;
  }

  std::string_view take(uint64_t size) {
    require(size <= bytes_.size(), "ends within a field");
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

  std::string_view bytes_;
  const std::string& name_;
  uint64_t kind_ = 0;
  uint64_t number_ = 0;
  std::string_view text_;
};

struct Model {
  std::vector<Piece> pieces;
  uint64_t model_type = 1;  // Unigram
  uint64_t bos = 1;
  uint64_t eos = 2;
  bool byte_fallback = false;
  bool has_suffix_spaces = false;
  std::string normalizer_name;
  bool has_table = false;
  bool adds_dummy_prefix = true;
  bool removes_extra_spaces = true;
  bool escapes_spaces = true;
};

class ModelReader {
 public:
  explicit ModelReader(const std::string& name) : name_(name) {}

  Model read(std::string_view bytes) {
    MessageReader message(bytes, name_);
    while (message.next()) {
      if (message.field == 1) read_piece(message.text());
      if (message.field == 2) read_trainer(message.text());
      if (message.field == 3) read_normalizer(message.text());
      if (message.field == 5) read_denormalizer(message.text());
    }
    message.require(!model_.pieces.empty(), "has no pieces");
    return std::move(model_);
  }

 private:
  void read_piece(std::string_view bytes) {
    MessageReader message(bytes, name_);
    Piece& piece = model_.pieces.emplace_back();
    while (message.next()) {
      if (message.field == 1) piece.text = message.text();
      if (message.field == 2) piece.score = message.scalar();
      if (message.field == 3) piece.type = message.number();
    }
    message.require(!piece.text.empty() && is_utf8(piece.text), "has a piece that is not UTF-8");
    message.require(piece.text.size() <= kMaxPieceBytes, "has a piece of more than 4096 bytes");
    message.require(std::isfinite(piece.score), "has a score that is not finite");
    message.require(
        piece.type >= kNormal && piece.type <= kByte && piece.type != kUnused,
        piece.type == kUnused ? "has pieces that are not used" : "has a piece of an unknown type");
    message.require(model_.pieces.size() <= static_cast<size_t>(kMaxTokens), "has too many pieces");
  }

  void read_trainer(std::string_view bytes) {
    MessageReader message(bytes, name_);
    while (message.next()) {
      if (message.field == 3) model_.model_type = message.number();
      if (message.field == 24) model_.has_suffix_spaces = message.number() != 0;
      if (message.field == 35) model_.byte_fallback = message.number() != 0;
      if (message.field == 41) model_.bos = message.number();
      if (message.field == 42) model_.eos = message.number();
    }
  }

  void read_normalizer(std::string_view bytes) {
    MessageReader message(bytes, name_);
    while (message.next()) {
      if (message.field == 1) model_.normalizer_name = message.text();
      if (message.field == 2) model_.has_table = !message.text().empty();
      if (message.field == 3) model_.adds_dummy_prefix = message.number() != 0;
      if (message.field == 4) model_.removes_extra_spaces = message.number() != 0;
      if (message.field == 5) model_.escapes_spaces = message.number() != 0;
    }
  }

  void read_denormalizer(std::string_view bytes) {
    MessageReader message(bytes, name_);
    while (message.next())
      message.require(message.field != 2 || message.text().empty(), "changes text that it decodes");
  }

  const std::string& name_;
  Model model_;
};

// Of normal pieces, the best score first; two of one score would merge in an order that depends on
// the text.
std::vector<std::string> pieces_by_score(const Model& model, const std::string& name) {
  std::vector<const Piece*> normal;
  for (const Piece& piece : model.pieces)
    if (piece.type == kNormal) normal.push_back(&piece);
  std::ranges::stable_sort(normal, std::greater<>(), &Piece::score);
  std::vector<std::string> texts;
  const Piece* before = nullptr;
  for (const Piece* piece : normal) {
    texts.push_back(piece->text);
    if (decode_utf8(piece->text.data()).length == piece->text.size()) continue;
    MT_CHECK_INPUT(before == nullptr || before->score > piece->score, name, ": the pieces \"",
                   before->text, "\" and \"", piece->text, "\" have one score, ", piece->score,
                   "; Moetron reads models where each has its own");
    before = piece;
  }
  return texts;
}

void add_pieces(const Model& model, const std::string& name, TokenizerFile& file) {
  std::unordered_set<std::string_view> texts;
  for (const Piece& piece : model.pieces) {
    MT_CHECK_INPUT(texts.insert(piece.text).second, name, ": the piece \"", piece.text,
                   "\" is there twice");
    const auto id = static_cast<int32_t>(file.vocab.size());
    file.vocab.emplace_back(piece.text, id);
    if (piece.type == kUnknown) file.unknown = piece.text;
    const bool is_control = piece.type == kControl || piece.type == kUnknown;
    if (!is_control && piece.type != kUserDefined) continue;
    AddedToken& added = file.added_tokens.emplace_back();
    added.content = piece.text;
    added.id = id;
    added.special = is_control;
    added.normalized = !is_control;  // user's symbols are found between the marks of spaces
  }
}

}  // namespace

TokenizerFile parse_sentencepiece_file(std::string_view bytes, const std::string& name) {
  const Model model = ModelReader(name).read(bytes);
  const auto require = [&](bool is_right, const auto&... cause) {
    MT_CHECK_INPUT(is_right, name, " is a SentencePiece model ", cause...);
  };
  require(model.model_type == 2, "of the type ", model.model_type,
          "; Moetron reads those of BPE (2), not Unigram (1), words (3) and characters (4)");
  require(!model.has_table, "that normalises by a table of its own (", model.normalizer_name,
          "); Moetron reads those that leave text as it is (identity)");
  require(!model.has_suffix_spaces, "with spaces behind words, which Moetron does not read");
  require(model.escapes_spaces, "that leaves spaces as they are, which Moetron does not read");
  TokenizerFile file;
  add_pieces(model, name, file);
  file.merges = derive_merges(pieces_by_score(model, name), true);
  file.has_written_contents = true;
  file.has_processor = false;
  // -1, which is large here, stands for none.
  if (model.bos < model.pieces.size()) file.bos = static_cast<int32_t>(model.bos);
  if (model.eos < model.pieces.size()) file.eos = static_cast<int32_t>(model.eos);
  file.characters.byte_fallback = model.byte_fallback;
  file.characters.fuses_unknown = true;
  if (model.removes_extra_spaces)
    file.normalizer.add(ReplaceStep{Pattern(R"(\A +|(?<= ) +)", false, name), ""});
  if (model.adds_dummy_prefix) file.normalizer.add(PrependStep{std::string(kSpaceMark)});
  file.normalizer.add(ReplaceStep{Pattern(" ", true, name), std::string(kSpaceMark)});
  if (model.removes_extra_spaces)
    file.normalizer.add(ReplaceStep{Pattern(R"(\u2581+\z)", false, name), ""});
  file.decoder.emplace();
  file.decoder->emplace_back(ReplaceStep{Pattern(kSpaceMark, true, name), " "});
  file.decoder->emplace_back(ByteFallbackDecoder{});
  file.decoder->emplace_back(FuseDecoder{});
  if (model.removes_extra_spaces) {
    file.decoder->emplace_back(ReplaceStep{Pattern(R"(\A +)", false, name), ""});
  } else if (model.adds_dummy_prefix) {
    file.decoder->emplace_back(StripDecoder{" ", 1, 0});
  }
  return file;
}

}  // namespace moetron
