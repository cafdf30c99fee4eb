#include "moetron/tokenizer/token_places.h"

#include <utility>

namespace moetron {

void TokenPlaces::begin_part(std::string_view source, std::string_view normalized,
                             std::vector<size_t> normalized_ends) {
  texts_.clear();
  texts_.push_back({source, normalized.data(), std::move(normalized_ends)});
}

void TokenPlaces::begin_copy(std::string_view piece, std::string_view copy,
                             std::vector<size_t> copy_ends) {
  texts_.push_back({piece, copy.data(), std::move(copy_ends)});
}

void TokenPlaces::add(const char* end) {
  for (auto text = texts_.rbegin(); text != texts_.rend(); ++text) {
    auto offset = static_cast<size_t>(end - text->begin);
    if (!text->ends.empty()) offset = text->ends[offset];
    end = text->old.data() + offset;
  }
  ends_.push_back(static_cast<size_t>(end - text_));
}

}  // namespace moetron
