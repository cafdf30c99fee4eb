#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "moetron/base/error.h"
#include "moetron/tokenizer/pattern.h"

namespace moetron {
namespace {

// What \s and \w mean to Oniguruma, as the inside of a character class. PCRE2's own \s has U+180E
// too, and its \w has no marks.
constexpr std::string_view kSpaceClass =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpaceClass =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWordClass =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

// Groups that both engines read in the same way. Inline flags do not belong here: (?m) lets a dot
// match line ends in one of them and moves anchors in the other.
constexpr std::array<std::string_view, 8> kGroups{
    "?:", "?=", "?!", "?<=", "?<!", "?>", "?i:", "?-i:"};

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& file) : pattern_(pattern), file_(file) {}

  std::string run() {
    while (place_ < pattern_.size()) {
      const char c = pattern_[place_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_character(c);
      } else {
        if (c == '(') check_group();
        if (c == '[') open_class();
        if (c == '{') check_interval();
        out_ += c;
        ++place_;
        if (in_class_ && place_ < pattern_.size() && pattern_[place_] == '^')
          out_ += pattern_[place_++];
      }
    }
    return out_;
  }

 private:
  void require(bool is_supported, std::string_view what) const {
    MT_CHECK_INPUT(is_supported, file_, ": the pre-tokenizer pattern ", pattern_,
                   " is not supported: ", what);
  }

  void open_class() {
    in_class_ = true;
    const std::string_view rest = pattern_.substr(place_ + 1);
    // A bracket here is a literal in one engine and an empty class in the other.
    require(!rest.starts_with("]") && !rest.starts_with("^]"), "a class that begins with ]");
  }

  void class_character(char c) {
    const std::string_view rest = pattern_.substr(place_);
    require(!rest.starts_with("&&"), "an intersection of classes");
    require(c != '[', "a class within a class");
    if (c == ']') in_class_ = false;
    out_ += c;
    ++place_;
  }

  void check_group() const {
    const std::string_view rest = pattern_.substr(place_ + 1);
    require(!rest.starts_with("*"), "a verb (*...)");
    if (!rest.starts_with("?")) return;
    for (const std::string_view group : kGroups) {
      if (rest.starts_with(group)) return;
    }
    require(false, concat("the group (", rest.substr(0, 3)));
  }

  // Ruby reads x{1,3}+ as (x{1,3})+ and x{3}? as (x{3})?, and {,3} as {0,3}; PCRE2 does not.
  void check_interval() const {
    const size_t close = pattern_.find('}', place_);
    if (close == std::string_view::npos) return;
    const std::string_view inside = pattern_.substr(place_ + 1, close - place_ - 1);
    const std::string_view rest = pattern_.substr(close + 1);
    require(!inside.starts_with(","), "an interval without a lower end");
    require(!rest.starts_with("+"), "an interval followed by +");
    require(!rest.starts_with("?") || inside.find(',') != std::string_view::npos,
            "a fixed interval followed by ?");
  }

  void add_class(std::string_view inside, bool is_negated = false) {
    out_ += in_class_ ? std::string(inside) : concat(is_negated ? "[^" : "[", inside, "]");
  }

  void escape() {
    require(place_ + 1 < pattern_.size(), "it ends with a backslash");
    const char c = pattern_[place_ + 1];
    const size_t begin = place_;
    place_ += 2;
    if (c == 's') return add_class(kSpaceClass);
    if (c == 'S') return add_class(kNotSpaceClass);
    if (c == 'w') return add_class(kWordClass);
    if (c == 'W') {
      require(!in_class_, "\\W in a class");
      return add_class(kWordClass, true);
    }
    if (c == 'p' || c == 'P') return property(c);
    if (c == 'v') {  // a vertical tab, not every vertical space
      out_ += "\\x{b}";
      return;
    }
    if (c == 'u') return code_point();
    if (c == 'x' && place_ < pattern_.size() && pattern_[place_] == '{') {
      place_ = std::min(pattern_.find('}', place_), pattern_.size() - 1) + 1;
    }
    const bool is_plain = std::string_view("dDrntfaex").find(c) != std::string_view::npos;
    const bool is_alphanumeric =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    require(is_plain || !is_alphanumeric, concat("the escape \\", c));
    out_ += pattern_.substr(begin, place_ - begin);
  }

  // \p{Name}: a general category, or else a script (not its extensions, which PCRE2 would take).
  void property(char letter) {
    require(place_ < pattern_.size() && pattern_[place_] == '{', "a property without braces");
    const size_t close = pattern_.find('}', place_);
    require(close != std::string_view::npos, "a property without an end");
    std::string_view name = pattern_.substr(place_ + 1, close - place_ - 1);
    place_ = close + 1;
    const bool is_negated = name.starts_with("^");
    if (is_negated) name.remove_prefix(1);
    require(name.find_first_of(":=") == std::string_view::npos, "a property with a value");
    const bool is_category = name.size() <= 2;
    out_ += concat('\\', letter, '{', is_negated ? "^" : "", is_category ? "" : "sc:", name, '}');
  }

  void code_point() {
    const std::string_view digits = pattern_.substr(place_, 4);
    require(digits.size() == 4 &&
                digits.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos,
            "\\u without four hexadecimal digits");
    place_ += 4;
    out_ += concat("\\x{", digits, "}");
  }

  std::string_view pattern_;
  const std::string& file_;
  std::string out_;
  size_t place_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& file) {
  return Translator(pattern, file).run();
}

}  // namespace moetron
