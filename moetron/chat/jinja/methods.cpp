#include "moetron/chat/jinja/methods.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/loop.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/printf.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

bool is_in(const std::string& name, Names names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

const Names kStringMethods = {
    "capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
    "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
    "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
    "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
    "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
    "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
    "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
    "swapcase",     "title",       "translate", "upper",      "zfill"};

Values strings(const std::vector<std::string_view>& parts, Budget& budget) {
  Values items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.push_back(make_string(std::string(part), budget));
  return items;
}

// What startswith and endswith take: a text or a tuple of texts.
bool has_end(const std::string& method, std::string_view text, const Value& what) {
  const bool at_begin = method == "startswith";
  if (what.is(Kind::kTuple)) {
    const Values& items = what.as<Sequence>().items;
    return std::any_of(items.begin(), items.end(),
                       [&](const Value& item) { return has_end(method, text, item); });
  }
  if (what.is_undefined() || !what.is_string())
    fail(method, " first arg must be str or a tuple of str, not ", type_name(what));
  return at_begin ? text.starts_with(what.text()) : text.ends_with(what.text());
}

// The part of a text between the character places that optional arguments name.
struct Part {
  std::string_view text;
  int64_t begin = 0;     // characters before it
  bool is_there = true;  // the begin is not behind the text
};

Part part_of(const std::string& text, const Bound& bound, size_t first) {
  if (!bound.has(first)) return {text};
  const int64_t length = count_characters(text);
  const auto place = [length](const Value& value, int64_t otherwise) {
    if (value.is_none()) return otherwise;
    const int64_t at = integer_of(value);
    return at < 0 ? std::max<int64_t>(at + length, 0) : at;
  };
  const int64_t begin = place(bound[first], 0);
  const int64_t end = std::min(place(bound.get(first + 1, {}), length), length);
  if (begin > length || begin > end) return {{}, begin, false};
  const size_t from = byte_of_character(text, begin);
  const size_t size = byte_of_character(std::string_view(text).substr(from), end - begin);
  return {std::string_view(text).substr(from, size), begin};
}

// A search from the right may compare all of `what` at every place.
void charge_backward(std::string_view text, std::string_view what, Budget& budget) {
  budget.step(text.size() / 64 * (1 + what.size() / 64));
}

Value find_method(const std::string& name, const std::string& text, const Arguments& arguments,
                  Budget& budget) {
  const Bound bound(arguments, name, {"sub", "start", "end"}, 1);
  const std::string& what = string_of(bound[0], "argument 1");
  const Part part = part_of(text, bound, 1);
  const bool from_right = name.starts_with('r');
  if (from_right) charge_backward(text, what, budget);
  const size_t found = !part.is_there ? std::string_view::npos
                       : from_right   ? part.text.rfind(what)
                                      : find_text(part.text, what);
  if (found == std::string_view::npos) {
    if (name.ends_with("index")) fail("substring not found");
    return -1;
  }
  return part.begin + count_characters(part.text.substr(0, found));
}

Value split_text(const std::string& name, const std::string& text, const Arguments& arguments,
                 Budget& budget) {
  const Bound bound(arguments, name, {"sep", "maxsplit"}, 0);
  const int64_t most = bound.has(1) ? integer_of(bound[1]) : -1;
  const bool from_right = name == "rsplit";
  const Value separator = bound.get(0, {});
  if (separator.is_none())
    return make_list(strings(split_at_spaces(text, most, from_right), budget), budget);
  const std::string& by = string_of(separator, "separator");
  if (by.empty()) fail("empty separator");
  if (from_right) charge_backward(text, by, budget);
  return make_list(strings(split(text, by, most, from_right), budget), budget);
}

Value partition_text(const std::string& name, const std::string& text, const Arguments& arguments,
                     Budget& budget) {
  const Bound bound(arguments, name, {"sep"}, 1);
  const std::string& by = string_of(bound[0], "separator");
  if (by.empty()) fail("empty separator");
  const bool from_right = name == "rpartition";
  if (from_right) charge_backward(text, by, budget);
  const size_t found = from_right ? text.rfind(by) : find_text(text, by);
  std::vector<std::string_view> parts = {text, {}, {}};
  if (found != std::string::npos) {
    parts = {std::string_view(text).substr(0, found), by,
             std::string_view(text).substr(found + by.size())};
  } else if (from_right) {
    parts = {{}, {}, text};
  }
  return make_tuple(strings(parts, budget), budget);
}

Value pad_text(const std::string& name, const std::string& text, const Arguments& arguments,
               Budget& budget) {
  const Bound bound(arguments, name, {"width", "fillchar"}, 1);
  const std::string fill = bound.has(1)      ? string_of(bound[1], "fillchar")
                           : name == "zfill" ? "0"
                                             : " ";
  if (count_characters(fill) != 1) fail("The fill character must be exactly one character long");
  const int64_t width = integer_of(bound[0]);
  const int64_t missing = width - count_characters(text);
  if (missing <= 0) return make_string(text, budget);
  budget.allocate(static_cast<uint64_t>(missing));
  budget.allocate(static_cast<uint64_t>(missing) * fill.size());
  const int64_t left = name == "ljust"    ? 0
                       : name == "center" ? missing / 2 + (missing & width & 1)
                                          : missing;
  std::string out;
  const size_t sign =
      name == "zfill" && !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  out.append(text, 0, sign);
  for (int64_t i = 0; i < left; ++i) out += fill;
  out.append(text, sign);
  for (int64_t i = left; i < missing; ++i) out += fill;
  return make_string(std::move(out), budget);
}

Value join_texts(const std::string& separator, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "join", {"iterable"}, 1);
  std::string out;
  int64_t count = 0;
  iterate(bound[0], budget, [&](const Value& item) {
    if (!item.is_string())
      fail("sequence item ", std::to_string(count), ": expected str instance, ", type_name(item),
           " found");
    if (count++ > 0) out += separator;
    out += item.text();
    budget.allocate(item.text().size() + separator.size());
    return true;
  });
  return text_value(std::move(out));
}

// Methods that give a text changed as a whole.
std::optional<std::string> changed_text(const std::string& name, const std::string& text) {
  if (name == "upper") return to_upper(text);
  if (name == "lower" || name == "casefold") return to_lower(text);
  if (name == "capitalize") return capitalize(text);
  if (name == "title") return title_case(text);
  if (name == "swapcase") return swap_case(text);
  return std::nullopt;
}

Value call_string_method(const std::string& text, const std::string& name,
                         const Arguments& arguments, Budget& budget) {
  budget.read(text.size());
  if (is_in(name, {"strip", "lstrip", "rstrip"})) {
    const Bound bound(arguments, name, {"chars"}, 0);
    const Side side = name == "strip" ? Side::kBoth : name == "lstrip" ? Side::kLeft : Side::kRight;
    const Value characters = bound.get(0, {});
    if (characters.is_none()) return make_string(std::string(strip(text, side)), budget);
    const std::string& set = string_of(characters, (name + " arg").c_str());
    budget.step(text.size() / 16 * (1 + set.size() / 16));
    return make_string(std::string(strip(text, side, set)), budget);
  }
  if (is_in(name, {"split", "rsplit"})) return split_text(name, text, arguments, budget);
  if (is_in(name, {"startswith", "endswith"})) {
    const Bound bound(arguments, name, {"prefix", "start", "end"}, 1);
    const Part part = part_of(text, bound, 1);
    return has_end(name, part.text, bound[0]) && part.is_there;
  }
  if (name == "replace") {
    const Bound bound(arguments, name, {"old", "new", "count"}, 2);
    const std::string& from = string_of(bound[0], "replace() argument 1");
    const std::string& to = string_of(bound[1], "replace() argument 2");
    return make_replaced(text, from, to, bound.has(2) ? integer_of(bound[2]) : -1, budget);
  }
  if (const std::optional<std::string> changed = changed_text(name, text)) {
    const Bound none(arguments, name, {}, 0);
    return make_string(*changed, budget);
  }
  if (const std::optional<bool> holds = test_text(name, text)) {
    const Bound none(arguments, name, {}, 0);
    return *holds;
  }
  if (is_in(name, {"find", "rfind", "index", "rindex"}))
    return find_method(name, text, arguments, budget);
  if (name == "count") {
    const Bound bound(arguments, name, {"sub", "start", "end"}, 1);
    const Part part = part_of(text, bound, 1);
    return part.is_there ? count_of(part.text, string_of(bound[0], "argument 1")) : int64_t{0};
  }
  if (name == "join") return join_texts(text, arguments, budget);
  if (name == "splitlines") {
    const Bound bound(arguments, name, {"keepends"}, 0);
    return make_list(strings(split_lines(text, bound.flag(0, false)), budget), budget);
  }
  if (is_in(name, {"removeprefix", "removesuffix"})) {
    const Bound bound(arguments, name, {"affix"}, 1);
    const std::string& affix = string_of(bound[0], (name + "() argument").c_str());
    if (name == "removeprefix") {
      return make_string(text.starts_with(affix) ? text.substr(affix.size()) : text, budget);
    }
    return make_string(text.ends_with(affix) ? text.substr(0, text.size() - affix.size()) : text,
                       budget);
  }
  if (is_in(name, {"partition", "rpartition"}))
    return partition_text(name, text, arguments, budget);
  if (is_in(name, {"ljust", "rjust", "center", "zfill"}))
    return pad_text(name, text, arguments, budget);
  if (name == "format") return make_string(format_braces(text, arguments, budget), budget);
  fail("the method ", name, " of texts is not supported");
}

Value call_dict_method(const Value& self, const std::string& name, const Arguments& arguments,
                       Budget& budget) {
  if (name == "get") {
    const Bound bound(arguments, name, {"key", "default"}, 1);
    const Value* found = self.as<Dict>().find(bound[0]);
    return found != nullptr ? *found : bound.get(1, {});
  }
  budget.step();
  const Bound none(arguments, name, {}, 0);
  if (name == "items") return std::make_shared<View>(self, ViewKind::kItems);
  if (name == "keys") return std::make_shared<View>(self, ViewKind::kKeys);
  if (name == "values") return std::make_shared<View>(self, ViewKind::kValues);
  if (name == "copy") return self;  // nothing can change it
  fail("the method ", name, " of dictionaries is not supported");
}

Value call_list_method(const Value& self, const std::string& name, const Arguments& arguments,
                       Budget& budget) {
  const Values& items = self.as<Sequence>().items;
  if (name == "copy") {
    const Bound none(arguments, name, {}, 0);
    return self;
  }
  const Bound bound(arguments, name, {"value"}, 1);
  int64_t count = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!equal(items[i], bound[0], budget)) continue;
    if (name == "index") return static_cast<int64_t>(i);
    ++count;
  }
  if (name == "count") return count;
  fail(representation(bound[0], budget), " is not in list");
}

}  // namespace

Value make_replaced(const std::string& text, const std::string& from, const std::string& to,
                    int64_t most, Budget& budget) {
  int64_t times = count_of(text, from);
  if (most >= 0) times = std::min(times, most);
  budget.allocate(text.size() + static_cast<uint64_t>(times) * to.size());
  return text_value(replace(text, from, to, most));
}

MethodStanding method_standing(const Value& value, const std::string& name) {
  if (!value.is_object()) {
    if (value.is_none() || value.is_bool()) return MethodStanding::kNone;
    const bool has = is_in(name, {"real", "imag", "conjugate", "as_integer_ratio", "is_integer"}) ||
                     (value.is_int() && is_in(name, {"numerator", "denominator", "bit_length",
                                                     "bit_count", "to_bytes", "from_bytes"})) ||
                     (value.is_float() && is_in(name, {"hex", "fromhex"}));
    return has ? MethodStanding::kThere : MethodStanding::kNone;
  }
  switch (value.object().kind) {
    case Kind::kString:
      return is_in(name, kStringMethods) ? MethodStanding::kThere : MethodStanding::kNone;
    case Kind::kList:
      if (is_in(name, {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}))
        return MethodStanding::kUnsafe;
      return is_in(name, {"copy", "count", "index"}) ? MethodStanding::kThere
                                                     : MethodStanding::kNone;
    case Kind::kTuple:
      return is_in(name, {"count", "index"}) ? MethodStanding::kThere : MethodStanding::kNone;
    case Kind::kDict:
      if (is_in(name, {"clear", "pop", "popitem", "setdefault", "update"}))
        return MethodStanding::kUnsafe;
      return is_in(name, {"copy", "fromkeys", "get", "items", "keys", "values"})
                 ? MethodStanding::kThere
                 : MethodStanding::kNone;
    case Kind::kLoop:
      return is_in(name, {"cycle", "changed"}) ? MethodStanding::kThere : MethodStanding::kNone;
    case Kind::kCycler:
      return is_in(name, {"next", "reset", "current"}) ? MethodStanding::kThere
                                                       : MethodStanding::kNone;
    default:
      return MethodStanding::kNone;
  }
}

Value call_method(const Value& self, const std::string& name, const Arguments& arguments,
                  Budget& budget) {
  budget.step();
  if (self.is_string()) {
    if (self.as<String>().is_markup) fail("methods of escaped text are not supported");
    return call_string_method(self.text(), name, arguments, budget);
  }
  if (self.is(Kind::kDict)) return call_dict_method(self, name, arguments, budget);
  if (self.is(Kind::kList) || self.is(Kind::kTuple))
    return call_list_method(self, name, arguments, budget);
  if (self.is(Kind::kLoop)) return self.as<Loop>().call(name, arguments, budget);
  if (self.is(Kind::kCycler) && name != "current") {
    const Bound none(arguments, name, {}, 0);
    Cycler& cycler = self.as<Cycler>();
    const Value current = cycler.items[cycler.place];
    cycler.place = name == "reset" ? 0 : (cycler.place + 1) % cycler.items.size();
    return name == "reset" ? Value() : current;
  }
  fail("the method ", name, " of ", type_name(self), " is not supported");
}

}  // namespace moetron::jinja
