#include "moetron/tokenizer/class_parser.h"

#include <array>
#include <optional>
#include <utility>

#include <utf8proc.h>

#include "moetron/base/error.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr char32_t kLongS = 0x17F;
constexpr char32_t kKelvin = 0x212A;
constexpr int kMaxDepth = 50;

std::optional<uint32_t> hexadecimal(std::string_view digits) {
  if (digits.empty() || digits.size() > 6) return std::nullopt;
  uint32_t value = 0;
  for (const char c : digits) {
    const bool is_digit = c >= '0' && c <= '9';
    const char small = static_cast<char>(c | 0x20);
    if (!is_digit && (small < 'a' || small > 'f')) return std::nullopt;
    value = value * 16 + static_cast<uint32_t>(is_digit ? c - '0' : small - 'a' + 10);
  }
  return value;
}

bool is_character(uint32_t value) {
  return value < kNumCodePoints && (value < 0xD800 || value > 0xDFFF);
}

// \p{Name}, \p{^Name}
CharSet parse_property(PatternPlace& place, bool is_negated, bool is_in_class) {
  place.require(place.takes("{"), "a property without braces");
  if (place.takes("^")) is_negated = !is_negated;
  const size_t size = place.rest().find('}');
  place.require(size != std::string_view::npos, "a property without an end");
  const std::string_view name = place.rest().substr(0, size);
  place.skip(size + 1);
  auto set = named_set(name);
  place.require(set.has_value(), concat("the property ", name));
  if (*set == word_set() && !is_in_class) set = lone_word_set();
  return is_negated ? set->complement() : *set;
}

// \x{4e2d}, \x2d, \u4e2d
char32_t parse_code(PatternPlace& place, bool is_long) {
  std::string_view digits = place.rest().substr(0, is_long ? 4 : 2);
  if (!is_long && place.takes("{")) {
    digits = place.rest().substr(0, place.rest().find('}'));
    place.require(digits.size() < place.rest().size(), "a code without an end");
    place.skip(1);
  } else {
    // Behind a \x may be one digit too, and from 80 on a byte.
    place.require(digits.size() == (is_long ? 4U : 2U), "a code that is cut short");
    place.require(is_long || hexadecimal(digits).value_or(0x80) < 0x80, "a byte of a character");
  }
  place.skip(digits.size());
  const auto value = hexadecimal(digits);
  place.require(value && is_character(*value), concat("the code ", digits));
  return *value;
}

ClassItem set_item(CharSet set, bool is_negated) {
  return {true, is_negated ? set.complement() : std::move(set), 0};
}

// [:alpha:] and the like, of which those are known that properties of the same name are.
CharSet parse_posix(PatternPlace& place) {
  const bool is_negated = place.takes("^");
  const size_t size = place.rest().find(":]");
  const std::string_view name = place.rest().substr(0, size);
  const bool is_known = name == "word" || name == "space" || name == "digit" || name == "xdigit";
  place.require(is_known, concat("the class [:", name.substr(0, 10)));
  place.skip(size + 2);
  const CharSet set = *named_set(name);
  return is_negated ? set.complement() : set;
}

class ClassParser {
 public:
  ClassParser(PatternPlace& place, bool any_case) : place_(place), any_case_(any_case) {}

  CharSet run(int depth) {
    place_.require(depth < kMaxDepth, "classes within classes within classes");
    const bool is_negated = place_.takes("^");
    // A literal, an error or an empty class: engines differ.
    place_.require(!place_.starts_with("]"), "a class that begins with ]");
    std::optional<CharSet> left;  // of &&
    CharSet set;
    while (!place_.takes("]")) {
      if (place_.takes("&&")) {
        left = left ? left->intersected(set) : set;
        set = CharSet();
      } else if (place_.takes("[:")) {
        set = set.united(parse_posix(place_));
      } else if (place_.takes("[")) {
        set = set.united(run(depth + 1));
      } else {
        set = set.united(item());
      }
    }
    if (left) set = left->intersected(set);
    if (any_case_) set = in_any_case(set, place_);
    return is_negated ? set.complement() : set;
  }

 private:
  CharSet item() {
    const ClassItem first = one();
    if (first.is_set) {
      place_.require(!place_.starts_with("-") || place_.starts_with("-]"), "a range of a set");
      return first.set;
    }
    if (!place_.starts_with("-") || place_.starts_with("-]"))
      return CharSet({{first.character, first.character}});
    place_.skip(1);
    place_.require(!place_.starts_with("[") && !place_.starts_with("&&"), "a range of a set");
    const ClassItem last = one();
    place_.require(!last.is_set, "a range of a set");
    place_.require(first.character <= last.character, "a range that ends before it begins");
    place_.require(!place_.starts_with("-") || place_.starts_with("-]"), "a range of a range");
    return CharSet({{first.character, last.character}});
  }

  ClassItem one() {
    const char32_t c = place_.next("a class without an end");
    if (c == '\\') return parse_escape(place_, true);
    return {false, {}, c};
  }

  PatternPlace& place_;
  bool any_case_;
};

}  // namespace

bool PatternPlace::takes(std::string_view text) {
  if (!starts_with(text)) return false;
  place_ += text.size();
  return true;
}

char32_t PatternPlace::next(std::string_view at_end) {
  require(!is_end(), at_end);
  const Character c = decode_utf8(pattern_.data() + place_);
  place_ += c.length;
  return c.value;
}

void PatternPlace::require(bool is_supported, std::string_view cause) const {
  MT_CHECK_INPUT(is_supported, what_, cause);
}

ClassItem parse_escape(PatternPlace& place, bool is_in_class) {
  const char32_t c = place.next("it ends with a backslash");
  switch (c) {
    case 's':
    case 'S':
      return set_item(space_set(), c == 'S');
    case 'w':
    case 'W':
      return set_item(is_in_class ? word_set() : lone_word_set(), c == 'W');
    case 'd':
    case 'D':
      return set_item(*named_set("nd"), c == 'D');
    case 'h':  // a hexadecimal digit, in Ruby
    case 'H':
      return set_item(*named_set("xdigit"), c == 'H');
    case 'p':
    case 'P':
      return set_item(parse_property(place, c == 'P', is_in_class), false);
    case 'x':
    case 'u':
      return {false, {}, parse_code(place, c == 'u')};
    case 'n':
      return {false, {}, '\n'};
    case 't':
      return {false, {}, '\t'};
    case 'r':
      return {false, {}, '\r'};
    case 'f':
      return {false, {}, '\f'};
    case 'v':
      return {false, {}, '\v'};
    case 'a':
      return {false, {}, '\a'};
    case 'e':
      return {false, {}, 0x1B};
    default:
      break;
  }
  const bool is_alphanumeric =
      (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  place.require(!is_alphanumeric,
                concat("the escape \\", static_cast<char>(c), is_in_class ? " in a class" : ""));
  return {false, {}, c};
}

CharSet parse_class(PatternPlace& place, bool any_case) {
  return ClassParser(place, any_case).run(0);
}

CharSet in_any_case(const CharSet& set, const PatternPlace& place) {
  std::vector<CodeRange> others;
  for (char32_t c = 'a'; c <= 'z'; ++c) {
    const char32_t capital = c - 32;
    const bool has_more = (c == 's' && set.contains(kLongS)) || (c == 'k' && set.contains(kKelvin));
    if (!set.contains(c) && !set.contains(capital) && !has_more) continue;
    others.push_back({c, c});
    others.push_back({capital, capital});
    if (c == 's') others.push_back({kLongS, kLongS});
    if (c == 'k') others.push_back({kKelvin, kKelvin});
  }
  for (const CodeRange& range : set.ranges()) {
    for (char32_t c = std::max<char32_t>(range.first, 0x80); c <= range.last; ++c) {
      if (c == kLongS || c == kKelvin) continue;
      const auto point = static_cast<utf8proc_int32_t>(c);
      place.require(utf8proc_tolower(point) == point && utf8proc_toupper(point) == point,
                    "letters other than those of ASCII in any case");
    }
  }
  return set.united(CharSet(std::move(others)));
}

}  // namespace moetron
