#include <algorithm>
#include <map>

#include "moetron/base/error.h"
#include "moetron/tokenizer/pattern_parser.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr uint8_t kLineFeed = '\n';
constexpr size_t kMaxKinds = 255;  // besides the line feed's

struct SetEdge {
  char32_t place;  // from here on the set contains characters, or no longer
  uint32_t set;
};

}  // namespace

CharKinds::CharKinds(const std::vector<CharSet>& sets, const std::string& what,
                     std::vector<std::vector<uint8_t>>& kinds_of_sets) {
  std::vector<SetEdge> edges;
  for (uint32_t i = 0; i < sets.size(); ++i) {
    for (const CodeRange& range : sets[i].ranges()) {
      edges.push_back({range.first, i});
      edges.push_back({range.last + 1, i});
    }
  }
  std::ranges::sort(edges, {}, &SetEdge::place);
  std::vector<uint8_t> kinds(kNumCodePoints);
  std::map<std::vector<bool>, uint8_t> known;
  std::vector<bool> members(sets.size());
  char32_t begin = 0;
  for (size_t i = 0; begin < kNumCodePoints;) {
    for (; i < edges.size() && edges[i].place == begin; ++i)
      members[edges[i].set] = !members[edges[i].set];
    const char32_t end = i < edges.size() ? edges[i].place : kNumCodePoints;
    size_t number = known.size();
    if (number >= kLineFeed) ++number;
    const auto [found, is_new] = known.emplace(members, static_cast<uint8_t>(number));
    MT_CHECK_INPUT(known.size() <= kMaxKinds, what, "it tells more than ", kMaxKinds,
                   " kinds of characters apart");
    std::fill(kinds.begin() + begin, kinds.begin() + end, found->second);
    begin = end;
  }
  kinds['\n'] = kLineFeed;
  for (uint32_t i = 0; i < sets.size(); ++i) {
    std::vector<uint8_t>& of_set = kinds_of_sets.emplace_back();
    if (sets[i].contains('\n')) of_set.push_back(kLineFeed);
    for (const auto& [members_of, kind] : known)
      if (members_of[i]) of_set.push_back(kind);
  }
  // Most pages are as those before them.
  std::map<std::vector<uint8_t>, uint16_t> pages;
  for (size_t i = 0; i < page_of_.size(); ++i) {
    const auto first = kinds.begin() + static_cast<ptrdiff_t>(i * kPage);
    if (i > 0 && std::equal(first, first + kPage, first - kPage)) {
      page_of_[i] = page_of_[i - 1];
      continue;
    }
    const auto number = static_cast<uint16_t>(pages.size());
    const auto [found, is_new] = pages.emplace(std::vector<uint8_t>(first, first + kPage), number);
    if (is_new) pages_.insert(pages_.end(), first, first + kPage);
    page_of_[i] = found->second;
  }
}

void CharKinds::read(std::string_view text, std::string& kinds) const {
  kinds.resize(text.size());
  char* out = kinds.data();
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const Character c = decode_utf8(p);
    *out++ = static_cast<char>(of(c.value));
    p += c.length;
  }
  kinds.resize(static_cast<size_t>(out - kinds.data()));
}

}  // namespace moetron
