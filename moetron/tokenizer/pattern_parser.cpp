#include "moetron/tokenizer/pattern_parser.h"

#include <algorithm>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/tokenizer/class_parser.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

// Letters that together are another one in any case, such as U+00DF: not supported.
constexpr std::array<std::string_view, 5> kLigatures{"ss", "ff", "fi", "fl", "st"};
constexpr size_t kNowhere = SIZE_MAX;

class Parser {
 public:
  Parser(std::string_view pattern, const std::string& file)
      : place_(pattern, concat(file, ": the pattern ", pattern, " is not supported: ")) {}

  ParsedPattern run() {
    while (!place_.is_end()) item();
    place_.require(groups_.size() == 1, "a group without an end");
    for (size_t i = 0; i < groups_.back().num_inner; ++i) add(")");
    return write();
  }

 private:
  struct Piece {
    std::string code;  // or, if empty, a set
    size_t set = 0;
  };
  struct Group {
    size_t begin = 0;  // its first piece
    bool any_case = false;
    bool dot_takes_lines = false;
    size_t num_inner = 0;  // groups that flags such as (?i) began, which end with this one
  };

  void item() {
    const char32_t c = place_.next();
    switch (c) {
      case '\\':
        return escape();
      case '[':
        return add_set(parse_class(place_, groups_.back().any_case));
      case '.':
        return add_set(groups_.back().dot_takes_lines ? CharSet().complement()
                                                      : CharSet({{'\n', '\n'}}).complement());
      case '(':
        return open_group();
      case ')':
        return close_group();
      case '*':
      case '+':
      case '?':
        return repeat(std::string(1, static_cast<char>(c)));
      case '{':
        return interval();
      case '|':
      case '^':
      case '$':
        atom_ = kNowhere;
        letter_ = 0;
        return add(std::string(1, static_cast<char>(c)));
      default:
        return literal(c);
    }
  }

  void add(std::string code) { pieces_.push_back({std::move(code), 0}); }

  void add_set(const CharSet& set) {
    atom_ = pieces_.size();
    letter_ = 0;
    ends_interval_ = false;
    const auto found = std::ranges::find(sets_, set);
    pieces_.push_back({"", static_cast<size_t>(found - sets_.begin())});
    if (found == sets_.end()) sets_.push_back(set);
  }

  void literal(char32_t c) {
    const char32_t before = letter_;
    const bool any_case = groups_.back().any_case;
    add_set(any_case ? in_any_case(CharSet({{c, c}}), place_) : CharSet({{c, c}}));
    if (!any_case || c >= 0x80) return;
    letter_ = c >= 'A' && c <= 'Z' ? c + 32 : c;
    const std::string pair{static_cast<char>(before), static_cast<char>(letter_)};
    place_.require(std::ranges::find(kLigatures, pair) == kLigatures.end(),
                   concat(pair, " in any case"));
  }

  void escape() {
    place_.require(!place_.is_end(), "it ends with a backslash");
    if (place_.takes("A") || place_.takes("z") || place_.takes("Z")) {
      atom_ = kNowhere;
      return add(std::string("\\") + place_.last());
    }
    if (place_.takes("b") || place_.takes("B")) return word_border(place_.last() == 'B');
    const ClassItem found = parse_escape(place_, false);
    if (found.is_set) return add_set(found.set);
    literal(found.character);
  }

  void word_border(bool is_negated) {
    const size_t begin = pieces_.size();
    const std::array<std::string_view, 5> parts =
        is_negated ? std::array<std::string_view, 5>{"(?:(?<=", ")(?=", ")|(?<!", ")(?!", "))"}
                   : std::array<std::string_view, 5>{"(?:(?<=", ")(?!", ")|(?<!", ")(?=", "))"};
    for (const std::string_view part : parts) {
      add(std::string(part));
      if (part != parts.back()) add_set(lone_word_set());
    }
    atom_ = begin;
  }

  void open_group() {
    Group group = groups_.back();
    group.begin = pieces_.size();
    group.num_inner = 0;
    letter_ = 0;
    if (!place_.takes("?")) {
      place_.require(!place_.starts_with("*"), "a verb (*...)");
      add("(?:");
    } else if (place_.takes("#")) {
      while (!place_.takes(")")) place_.next("a comment without an end");
      return;
    } else if (place_.takes("<=") || place_.takes("<!")) {
      add(std::string("(?<") + place_.last());
    } else if (place_.takes("=") || place_.takes("!") || place_.takes(">") || place_.takes(":")) {
      add(std::string("(?") + place_.last());
    } else if (place_.takes("<")) {  // a name that nothing refers to
      while (!place_.takes(">")) place_.next("a name without an end");
      add("(?:");
    } else {
      if (read_flags(group)) return;
      add("(?:");
    }
    groups_.push_back(group);
    atom_ = kNowhere;
  }

  // True for flags that hold up to the end of the group around them: (?i).
  bool read_flags(Group& group) {
    bool is_on = true;
    while (!place_.takes(":")) {
      if (place_.takes(")")) {
        groups_.back().any_case = group.any_case;
        groups_.back().dot_takes_lines = group.dot_takes_lines;
        ++groups_.back().num_inner;
        atom_ = kNowhere;
        add("(?:");
        return true;
      }
      if (place_.takes("-")) {
        is_on = false;
      } else if (place_.takes("i")) {
        group.any_case = is_on;
      } else if (place_.takes("m")) {
        group.dot_takes_lines = is_on;
      } else {
        place_.require(false, concat("the group (?", place_.rest().substr(0, 1)));
      }
    }
    return false;
  }

  void close_group() {
    place_.require(groups_.size() > 1, "a group without a beginning");
    for (size_t i = 0; i <= groups_.back().num_inner; ++i) add(")");
    atom_ = groups_.back().begin;
    groups_.pop_back();
    letter_ = 0;
    ends_interval_ = false;
  }

  void repeat(std::string sign) {
    place_.require(atom_ != kNowhere, concat("nothing to repeat before ", sign));
    letter_ = 0;
    // Ruby reads x{1,3}+ as (x{1,3})+ and x{3}? as (x{3})?; PCRE2 does not.
    if (ends_interval_ && (sign != "?" || is_fixed_)) {
      pieces_.insert(pieces_.begin() + static_cast<ptrdiff_t>(atom_), {"(?:", 0});
      add(")");
    }
    ends_interval_ = false;
    add(std::move(sign));
  }

  // {2}, {2,}, {,2} or {2,3}; what is none of these stands for itself.
  void interval() {
    const std::string_view inside = place_.rest().substr(0, place_.rest().find('}'));
    const size_t comma = inside.find(',');
    const std::string_view low = inside.substr(0, comma);
    const std::string_view high =
        comma == inside.npos ? std::string_view() : inside.substr(comma + 1);
    const bool is_interval = inside.size() < place_.rest().size() &&
                             concat(low, high).find_first_not_of("0123456789") == inside.npos &&
                             !(low.empty() && high.empty());
    if (!is_interval) return literal('{');
    place_.require(low.size() < 6 && high.size() < 6, "an interval of more than 5 digits");
    place_.skip(inside.size() + 1);
    repeat(concat('{', low.empty() ? "0" : low, comma == inside.npos ? "" : ",", high, '}'));
    ends_interval_ = true;
    is_fixed_ = comma == inside.npos;
  }

  ParsedPattern write() const {
    ParsedPattern parsed;
    std::vector<std::vector<uint8_t>> kinds_of_sets;
    parsed.kinds = CharKinds(sets_, place_.what(), kinds_of_sets);
    std::vector<std::string> classes;
    for (const std::vector<uint8_t>& kinds : kinds_of_sets) {
      std::string& code = classes.emplace_back("[");
      for (const uint8_t kind : kinds) code += concat("\\x", kHex[kind / 16], kHex[kind % 16]);
      code = kinds.empty() ? "(?!)" : code + "]";
    }
    for (const Piece& piece : pieces_)
      parsed.code += piece.code.empty() ? classes[piece.set] : piece.code;
    return parsed;
  }

  static constexpr std::string_view kHex = "0123456789abcdef";
  PatternPlace place_;
  std::vector<Piece> pieces_;
  std::vector<CharSet> sets_;
  std::vector<Group> groups_{Group{}};
  size_t atom_ = kNowhere;  // the piece where that begins which a quantifier would repeat
  bool ends_interval_ = false;
  bool is_fixed_ = false;  // the interval has one number
  char32_t letter_ = 0;    // the letter before, in any case
};

}  // namespace

ParsedPattern parse_pattern(std::string_view pattern, const std::string& file) {
  return Parser(pattern, file).run();
}

}  // namespace moetron
