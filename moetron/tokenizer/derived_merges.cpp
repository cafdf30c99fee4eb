#include "moetron/tokenizer/derived_merges.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

using RankOfToken = std::unordered_map<std::string_view, uint32_t>;
constexpr uint32_t kNoToken = UINT32_MAX;

// Merges one token up to its last two parts; where the second begins, or 0.
class TokenSplitter {
 public:
  TokenSplitter(const RankOfToken& ranks, bool by_characters)
      : ranks_(ranks), by_characters_(by_characters) {}

  size_t split(std::string_view token) {
    begins_.clear();
    for (size_t i = 0; i < token.size();) {
      begins_.push_back(i);
      i += by_characters_ ? decode_utf8(token.data() + i).length : 1;
    }
    const auto end_of = [&](size_t i) { return i < begins_.size() ? begins_[i] : token.size(); };
    const auto rank_at = [&](size_t i) {
      if (i + 1 >= begins_.size()) return kNoToken;
      const auto found = ranks_.find(token.substr(begins_[i], end_of(i + 2) - begins_[i]));
      return found != ranks_.end() ? found->second : kNoToken;
    };
    pairs_.clear();
    for (size_t i = 0; i < begins_.size(); ++i) pairs_.push_back(rank_at(i));
    while (begins_.size() > 2) {
      const auto lowest = std::ranges::min_element(pairs_);
      if (*lowest == kNoToken) return 0;
      const auto i = static_cast<size_t>(lowest - pairs_.begin());
      begins_.erase(begins_.begin() + static_cast<ptrdiff_t>(i) + 1);
      pairs_.erase(pairs_.begin() + static_cast<ptrdiff_t>(i) + 1);
      pairs_[i] = rank_at(i);
      if (i > 0) pairs_[i - 1] = rank_at(i - 1);
    }
    return begins_.size() == 2 ? begins_[1] : 0;
  }

 private:
  const RankOfToken& ranks_;
  bool by_characters_;
  std::vector<size_t> begins_;
  std::vector<uint32_t> pairs_;  // the rank of each part and the next together
};

}  // namespace

std::vector<std::pair<std::string, std::string>> derive_merges(
    const std::vector<std::string>& tokens, bool by_characters) {
  RankOfToken ranks;
  ranks.reserve(tokens.size());
  for (uint32_t rank = 0; rank < tokens.size(); ++rank) ranks.emplace(tokens[rank], rank);
  TokenSplitter splitter(ranks, by_characters);
  std::vector<std::pair<std::string, std::string>> merges;
  for (const std::string& token : tokens) {
    const size_t border = splitter.split(token);
    if (border > 0) merges.emplace_back(token.substr(0, border), token.substr(border));
  }
  return merges;
}

}  // namespace moetron
