#include "moetron/tokenizer/tokenizer.h"

#include <functional>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/tokenizer/tokenizer_parts.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr int32_t kBytesEnd = 256;  // the token of bytes() that ends a document
constexpr std::string_view kBytesEndName = "<|endoftext|>";

}  // namespace

std::unique_ptr<EncodeScratch> ScratchPool::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return std::make_unique<EncodeScratch>();
  std::unique_ptr<EncodeScratch> scratch = std::move(free_.back());
  free_.pop_back();
  return scratch;
}

void ScratchPool::give_back(std::unique_ptr<EncodeScratch> scratch) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(scratch));
}

void TokenBytes::set(int32_t id, std::string_view bytes) {
  if (id >= size()) places_.resize(static_cast<size_t>(id) + 1);
  places_[id] = {bytes_.size(), bytes.size()};
  bytes_.append(bytes);
}

std::string_view TokenBytes::get(int32_t id) const {
  if (!contains(id)) return {};
  return std::string_view(bytes_).substr(places_[id].begin, places_[id].length);
}

bool TokenBytes::contains(int32_t id) const {
  return id >= 0 && id < size() && places_[id].begin != SIZE_MAX;
}

// Encodes words of a part of a text, and notes the places of their tokens where that is asked for.
class Tokenizer::Parts::WordEncoder : public WordConsumer {
 public:
  WordEncoder(const Parts& parts, std::string_view text, BpeScratch& scratch,
              std::vector<int32_t>& ids, TokenPlaces* places)
      : parts_(parts), text_(text), scratch_(scratch), ids_(ids), places_(places) {}

  void take(std::span<const std::string_view> words) override {
    if (places_ == nullptr) return parts_.bpe.encode(words, readable_end(words), scratch_, ids_);
    for (const std::string_view word : words) {
      token_ends_.clear();
      parts_.bpe.encode_placed(word, scratch_, ids_, token_ends_);
      for (const uint32_t end : token_ends_) places_->add(word.data() + end);
    }
  }

 private:
  // Rewritten pieces lie elsewhere.
  const char* readable_end(std::span<const std::string_view> words) const {
    const std::less_equal<const char*> before;
    const char* const end = text_.data() + text_.size();
    const auto is_inside = [&](std::string_view word) {
      return before(text_.data(), word.data()) && before(word.data() + word.size(), end);
    };
    return is_inside(words.front()) && is_inside(words.back()) ? end : nullptr;
  }

  const Parts& parts_;
  std::string_view text_;
  BpeScratch& scratch_;
  std::vector<int32_t>& ids_;
  TokenPlaces* places_;
  std::vector<uint32_t> token_ends_;  // of a word
};

void Tokenizer::Parts::encode_part(std::string_view text, const PartContext& context,
                                   EncodeScratch& scratch, std::vector<int32_t>& ids_out) const {
  TokenPlaces* const places = context.places;
  NormalizedText& normalized = scratch.normalized;
  normalizer.normalize(text, places != nullptr, context.continues, normalized);
  if (places != nullptr) places->begin_part(text, normalized.text, normalized.ends);
  scratch.normalized_parts.clear();
  if (context.finds_added) {
    normalized_tokens.split(normalized.text, scratch.normalized_parts);
  } else if (!normalized.text.empty()) {
    scratch.normalized_parts.push_back({-1, normalized.text});
  }
  const char* const begin = normalized.text.data();
  const PieceContext of_pieces{context.is_first && !normalized.lost_front ? begin : nullptr,
                               context.continues ? begin : nullptr, places};
  for (const TextPart& part : scratch.normalized_parts) {
    if (part.id >= 0) {
      ids_out.push_back(part.id);
      if (places != nullptr) places->add(part.text.data() + part.text.size());
      continue;
    }
    WordEncoder encoder(*this, part.text, scratch.bpe, ids_out, places);
    WordBatch words(encoder);
    pre_tokenize(stages, part.text, of_pieces, words);
    words.flush();
  }
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}

Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::bytes() {
  auto parts = std::make_unique<Parts>();
  parts->is_bytes = true;
  parts->base_vocab_size = kBytesEnd;
  for (int byte = 0; byte < kBytesEnd; ++byte) {
    const char text = static_cast<char>(byte);
    parts->bytes.set(byte, {&text, 1});
  }
  parts->bytes.set(kBytesEnd, kBytesEndName);
  parts->special.resize(kBytesEnd + 1);
  parts->special[kBytesEnd] = true;
  parts->eos = kBytesEnd;
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<int32_t> ids;
  if (parts_->is_bytes) {
    ids.reserve(text.size());
    for (const char byte : text) ids.push_back(static_cast<uint8_t>(byte));
    return ids;
  }
  std::string repaired;
  if (!is_utf8(text)) {
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  // Text has three to five bytes a token in most languages and vocabularies.
  ids.reserve(text.size() / 3 + parts_->prefix.size() + parts_->suffix.size());
  if (add_special_tokens) ids = parts_->prefix;
  std::unique_ptr<EncodeScratch> scratch = parts_->scratches.take();
  scratch->raw_parts.clear();
  parts_->raw_tokens.split(text, scratch->raw_parts);
  for (const TextPart& part : scratch->raw_parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      parts_->encode_part(part.text, {.is_first = part.text.data() == text.data()}, *scratch, ids);
    }
  }
  parts_->scratches.give_back(std::move(scratch));
  if (add_special_tokens) ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
  return ids;
}

PlacedTokens Tokenizer::encode_pieces(std::string_view text,
                                      std::span<const TextPiece> pieces) const {
  PlacedTokens tokens;
  if (parts_->is_bytes) {
    for (size_t i = 0; i < text.size(); ++i) {
      tokens.ids.push_back(static_cast<uint8_t>(text[i]));
      tokens.ends.push_back(i + 1);
    }
    return tokens;
  }
  MT_CHECK(is_utf8(text), "text with places is not UTF-8");
  TokenPlaces places(text.data(), tokens.ends);
  std::unique_ptr<EncodeScratch> scratch = parts_->scratches.take();
  size_t begin = 0;
  bool continues = false;
  for (const TextPiece& piece : pieces) {
    const std::string_view part_of_text = text.substr(begin, piece.end - begin);
    begin = piece.end;
    if (part_of_text.empty()) continue;
    scratch->raw_parts.clear();
    if (piece.is_plain) {
      scratch->raw_parts.push_back({-1, part_of_text});
    } else {
      parts_->raw_tokens.split(part_of_text, scratch->raw_parts);
    }
    for (const TextPart& part : scratch->raw_parts) {
      if (part.id < 0) {
        const bool is_first = part.text.data() == text.data();
        parts_->encode_part(part.text, {is_first, continues, !piece.is_plain, &places}, *scratch,
                            tokens.ids);
        continues = true;
        continue;
      }
      continues = false;
      tokens.ids.push_back(part.id);
      places.begin_part(part.text, part.text, {});
      places.add(part.text.data() + part.text.size());
    }
  }
  parts_->scratches.give_back(std::move(scratch));
  return tokens;
}

std::vector<AddedToken> Tokenizer::added_tokens() const {
  std::vector<AddedToken> tokens = parts_->raw_tokens.tokens();
  const std::vector<AddedToken>& more = parts_->normalized_tokens.tokens();
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  std::vector<std::string> tokens;
  for (const int32_t id : ids) {
    if (skip_special_tokens && id >= 0 && static_cast<size_t>(id) < parts_->special.size() &&
        parts_->special[id]) {
      continue;
    }
    const std::string_view bytes = parts_->bytes.get(id);
    if (!parts_->decoder) {
      text.append(bytes);
    } else if (parts_->bytes.contains(id)) {
      tokens.emplace_back(bytes);
    }
  }
  if (parts_->decoder) text = decode_tokens(*parts_->decoder, std::move(tokens));
  return is_utf8(text) ? text : replace_invalid_utf8(text);
}

int64_t Tokenizer::vocab_size() const {
  return parts_->bytes.size();
}

int64_t Tokenizer::base_vocab_size() const {
  return parts_->base_vocab_size;
}

std::span<const int32_t> Tokenizer::prefix() const {
  return parts_->prefix;
}

std::span<const int32_t> Tokenizer::suffix() const {
  return parts_->suffix;
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return parts_->bos;
}

std::optional<int32_t> Tokenizer::eos_id() const {
  return parts_->eos;
}

}  // namespace moetron
