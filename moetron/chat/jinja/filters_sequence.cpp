// Filters of sequences and dictionaries.
#include <algorithm>
#include <set>

#include "moetron/chat/jinja/attribute_path.h"
#include "moetron/chat/jinja/filters.h"
#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

Value folded(const Value& value, bool case_sensitive, Budget& budget) {
  return value.is_string() && !case_sensitive ? make_string(to_lower(value.text()), budget) : value;
}

struct Keyed {
  Value key;
  Value value;
};

// Stable, as Python's sorted(), backwards too.
Values sorted(std::vector<Keyed> items, bool is_reverse, Budget& budget) {
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& one, const Keyed& other) {
    return is_reverse ? less(other.key, one.key, budget) : less(one.key, other.key, budget);
  });
  Values values;
  values.reserve(items.size());
  for (Keyed& item : items) values.push_back(std::move(item.value));
  return values;
}

Value sort_values(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_sort", {"reverse", "case_sensitive", "attribute"}, 0);
  const std::vector<AttributePath> paths = attribute_paths(bound.get(2, {}));
  std::vector<Keyed> items;
  iterate(value, budget, [&](const Value& item) {
    Values key;
    for (const AttributePath& path : paths)
      key.push_back(folded(path.get(item, budget), bound.flag(1, false), budget));
    items.push_back({make_list(std::move(key), budget), item});
    return true;
  });
  return make_list(sorted(std::move(items), bound.flag(0, false), budget), budget);
}

Value sort_dict(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_dictsort", {"case_sensitive", "by", "reverse"}, 0);
  const std::string by = bound.has(1) ? to_text(bound[1], budget) : "key";
  if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is(Kind::kDict)) fail("'", type_name(value), "' object has no attribute 'items'");
  std::vector<Keyed> items;
  for (const auto& [name, item] : value.as<Dict>().items)
    items.push_back({folded(by == "key" ? name : item, bound.flag(0, false), budget),
                     make_tuple({name, item}, budget)});
  return make_list(sorted(std::move(items), bound.flag(2, false), budget), budget);
}

Value unique_values(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_unique", {"case_sensitive", "attribute"}, 0);
  const AttributePath path(bound.get(1, {}));
  std::set<std::string> seen;
  Values values;
  iterate(value, budget, [&](const Value& item) {
    const std::string key = key_of(folded(path.get(item, budget), bound.flag(0, false), budget));
    budget.allocate(key.size() + sizeof(Value));
    if (seen.insert(key).second) values.push_back(item);
    return true;
  });
  return make_iterator(std::move(values));
}

Value least_or_most(bool most, const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, most ? "do_max" : "do_min", {"case_sensitive", "attribute"}, 0);
  const AttributePath path(bound.get(1, {}));
  std::optional<Keyed> best;
  iterate(value, budget, [&](const Value& item) {
    const Value key = folded(path.get(item, budget), bound.flag(0, false), budget);
    if (!best || (most ? less(best->key, key, budget) : less(key, best->key, budget)))
      best = {key, item};
    return true;
  });
  return best ? best->value : make_undefined("No aggregated item, sequence was empty.");
}

Value joined(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_join", {"d", "attribute"}, 0);
  const std::string separator = bound.has(0) ? to_text(bound[0], budget) : "";
  const AttributePath path(bound.get(1, {}));
  std::string text;
  bool is_first = true;
  iterate(value, budget, [&](const Value& item) {
    if (!is_first) text += separator;
    is_first = false;
    text += to_text(path.get(item, budget), budget);
    budget.allocate(separator.size());
    return true;
  });
  return make_string(std::move(text), budget);
}

Value added_up(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_sum", {"attribute", "start"}, 0);
  const AttributePath path(bound.get(0, {}));
  Value sum = bound.get(1, 0);
  if (sum.is_string()) fail("sum() can't sum strings [use ''.join(seq) instead]");
  iterate(value, budget, [&](const Value& item) {
    sum = compute(Operator::kAdd, sum, path.get(item, budget), budget);
    return true;
  });
  return sum;
}

Value batches(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_batch", {"linecount", "fill_with"}, 1);
  const int64_t size = integer_of(bound[0]);
  const Value fill = bound.get(1, {});
  Values lines;
  Values line;
  iterate(value, budget, [&](const Value& item) {
    if (static_cast<int64_t>(line.size()) == size)
      lines.push_back(make_list(std::exchange(line, {}), budget));
    line.push_back(item);
    return true;
  });
  if (!line.empty()) {
    while (!fill.is_none() && static_cast<int64_t>(line.size()) < size) {
      budget.allocate(sizeof(Value));
      line.push_back(fill);
    }
    lines.push_back(make_list(std::move(line), budget));
  }
  return make_iterator(std::move(lines));
}

Value slices(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_slice", {"slices", "fill_with"}, 1);
  const int64_t count = integer_of(bound[0]);
  const Value fill = bound.get(1, {});
  const Values items = list_of(value, budget);
  const auto length = static_cast<int64_t>(items.size());
  if (count == 0) fail("integer division or modulo by zero");
  Values result;
  int64_t begin = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool has_extra = i < length % count;
    const int64_t size = length / count + (has_extra ? 1 : 0);
    Values slice(items.begin() + begin, items.begin() + begin + size);
    begin += size;
    if (!fill.is_none() && !has_extra) slice.push_back(fill);
    result.push_back(make_list(std::move(slice), budget));
  }
  return make_iterator(std::move(result));
}

Value reversed(const Value& value, Budget& budget) {
  if (value.is_string()) {
    budget.allocate(value.text().size() * sizeof(std::string_view));
    const std::vector<std::string_view> characters = split_characters(value.text());
    std::string text;
    for (auto c = characters.rbegin(); c != characters.rend(); ++c) text += *c;
    return make_string(std::move(text), budget);
  }
  if (!is_iterable(value)) fail("argument must be iterable");
  Values values = list_of(value, budget);
  std::reverse(values.begin(), values.end());
  if (value.is(Kind::kIterator)) return make_list(std::move(values), budget);
  return make_iterator(std::move(values), "list_reverseiterator");
}

Value last_of(const Value& value, Budget& budget) {
  if (!is_iterable(value) || value.is(Kind::kIterator))
    fail("'", type_name(value), "' object is not reversible");
  const Values values = list_of(value, budget);
  return values.empty() ? make_undefined("No last item, sequence was empty.") : values.back();
}

Value first_of(const Value& value, Budget& budget) {
  Value first = make_undefined("No first item, sequence was empty.");
  iterate(value, budget, [&first](const Value& item) {
    first = item;
    return false;
  });
  return first;
}

Value items_of(const Value& value, Budget& budget) {
  if (value.is_undefined()) return make_iterator({});
  if (!value.is(Kind::kDict)) fail("Can only get item pairs from a mapping.");
  Values pairs;
  for (const auto& [name, item] : value.as<Dict>().items)
    pairs.push_back(make_tuple({name, item}, budget));
  return make_iterator(std::move(pairs));
}

}  // namespace

Value filter_sequence(const std::string& name, const Value& value, const Arguments& arguments,
                      Budget& budget) {
  if (name == "default" || name == "d") {
    const Bound bound(arguments, "do_default", {"default_value", "boolean"}, 0);
    const bool is_missing = value.is_undefined() || (bound.flag(1, false) && !is_true(value));
    return is_missing ? bound.get(0, text_value("")) : value;
  }
  if (name == "join") return joined(value, arguments, budget);
  if (name == "sort") return sort_values(value, arguments, budget);
  if (name == "dictsort") return sort_dict(value, arguments, budget);
  if (name == "unique") return unique_values(value, arguments, budget);
  if (name == "max" || name == "min") return least_or_most(name == "max", value, arguments, budget);
  if (name == "sum") return added_up(value, arguments, budget);
  if (name == "batch") return batches(value, arguments, budget);
  if (name == "slice") return slices(value, arguments, budget);
  if (name == "attr") {
    const Bound bound(arguments, "do_attr", {"name"}, 1);
    const std::string& attribute = string_of(bound[0], "attribute name");
    if (value.is(Kind::kDict) && value.as<Dict>().find(attribute) != nullptr)
      fail("the filter attr of a key is not supported");
    return get_attribute(value, attribute, budget);
  }
  const Bound none(arguments, name, {}, 0);
  if (name == "length" || name == "count") {
    const std::optional<int64_t> length = length_of(value);
    if (!length) fail("object of type '", type_name(value), "' has no len()");
    return *length;
  }
  if (name == "first") return first_of(value, budget);
  if (name == "last") return last_of(value, budget);
  if (name == "reverse") return reversed(value, budget);
  if (name == "items") return items_of(value, budget);
  return make_list(list_of(value, budget), budget);  // list
}

}  // namespace moetron::jinja
