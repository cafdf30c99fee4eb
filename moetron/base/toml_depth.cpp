#include "moetron/base/toml_depth.h"

#include <algorithm>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr int kMaxDots = 32;

// The place behind the string or comment that begins at `i`, or i + 1 where none does.
size_t skip_one(std::string_view text, size_t i) {
  const char c = text[i];
  if (c == '#') return std::min(text.find('\n', i), text.size());
  if (c != '"' && c != '\'') return i + 1;
  const std::string_view triple = c == '"' ? R"(""")" : "'''";
  const bool is_long = text.substr(i, 3) == triple;
  const std::string_view end = is_long ? triple : triple.substr(0, 1);
  for (i += end.size(); i < text.size(); ++i) {
    if (c == '"' && text[i] == '\\')
      ++i;  // whatever it escapes
    else if (text.substr(i, end.size()) == end)
      return i + end.size();
    else if (!is_long && text[i] == '\n')
      return i;  // the parser will say so
  }
  return text.size();
}

}  // namespace

void check_toml_depth(std::string_view text, const std::string& name) {
  int dots = 0;  // of what may be a key
  for (size_t i = 0; i < text.size(); i = skip_one(text, i)) {
    if (text[i] == '.') ++dots;
    if (std::string_view("\n=,[{").find(text[i]) != std::string_view::npos) dots = 0;
    MT_CHECK_CONFIG(dots <= kMaxDots, name, " line ",
                    std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(i), '\n') + 1,
                    ": the key has more than ", kMaxDots, " parts");
  }
}

}  // namespace moetron
