#include "moetron/tokenizer/tokenizer.h"

#include <utility>

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

void Tokenizer::Parts::encode_part(std::string_view text, EncodeScratch& scratch,
                                   std::vector<int32_t>& ids_out) const {
  if (normalizes_nfc) text = normalize_nfc(text, scratch.normalized);
  scratch.normalized_parts.clear();
  normalized_tokens.split(text, scratch.normalized_parts);
  for (const TextPart& part : scratch.normalized_parts) {
    if (part.id >= 0) {
      ids_out.push_back(part.id);
      continue;
    }
    pre_tokenize(stages, part.text, scratch.pre_tokenizer);
    for (const std::string_view piece : scratch.pre_tokenizer.pieces) {
      bpe.encode(piece, scratch.bpe, ids_out);
    }
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
      parts_->encode_part(part.text, *scratch, ids);
    }
  }
  parts_->scratches.give_back(std::move(scratch));
  if (add_special_tokens) ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  for (const int32_t id : ids) {
    if (skip_special_tokens && id >= 0 && static_cast<size_t>(id) < parts_->special.size() &&
        parts_->special[id]) {
      continue;
    }
    text.append(parts_->bytes.get(id));
  }
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
