#include "moetron/chat/jinja/filters.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/operators.h"

namespace moetron::jinja {
namespace {

using Filter = Value (*)(const std::string&, const Value&, const Arguments&, Budget&);

Value refuse_filter(const std::string& name, const Value&, const Arguments&, Budget&) {
  fail("the filter ", name, " is not supported");
}

struct NamedFilter {
  std::string_view name;
  Filter apply;
};

constexpr std::array<NamedFilter, 54> kFilters{{
    {"abs", filter_number},        {"attr", filter_sequence},
    {"batch", filter_sequence},    {"capitalize", filter_text},
    {"center", filter_text},       {"count", filter_sequence},
    {"d", filter_sequence},        {"default", filter_sequence},
    {"dictsort", filter_sequence}, {"e", filter_text},
    {"escape", filter_text},       {"filesizeformat", refuse_filter},
    {"first", filter_sequence},    {"float", filter_number},
    {"forceescape", filter_text},  {"format", filter_text},
    {"groupby", refuse_filter},    {"indent", filter_text},
    {"int", filter_number},        {"items", filter_sequence},
    {"join", filter_sequence},     {"last", filter_sequence},
    {"length", filter_sequence},   {"list", filter_sequence},
    {"lower", filter_text},        {"map", filter_selection},
    {"max", filter_sequence},      {"min", filter_sequence},
    {"pprint", refuse_filter},     {"random", refuse_filter},
    {"reject", filter_selection},  {"rejectattr", filter_selection},
    {"replace", filter_text},      {"reverse", filter_sequence},
    {"round", filter_number},      {"safe", filter_text},
    {"select", filter_selection},  {"selectattr", filter_selection},
    {"slice", filter_sequence},    {"sort", filter_sequence},
    {"string", filter_text},       {"striptags", refuse_filter},
    {"sum", filter_sequence},      {"title", filter_text},
    {"tojson", filter_text},       {"trim", filter_text},
    {"truncate", filter_text},     {"unique", filter_sequence},
    {"upper", filter_text},        {"urlencode", refuse_filter},
    {"urlize", refuse_filter},     {"wordcount", refuse_filter},
    {"wordwrap", refuse_filter},   {"xmlattr", refuse_filter},
}};

const NamedFilter* find_filter(const std::string& name) {
  const auto found =
      std::find_if(kFilters.begin(), kFilters.end(),
                   [&name](const NamedFilter& filter) { return filter.name == name; });
  return found == kFilters.end() ? nullptr : &*found;
}

}  // namespace

bool has_filter(const std::string& name) {
  return find_filter(name) != nullptr;
}

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments,
                   Budget& budget) {
  const Budget::Level level(budget);
  budget.step();
  const NamedFilter* filter = find_filter(name);
  if (filter == nullptr) fail("No filter named '", name, "' found.");
  return filter->apply(name, value, arguments, budget);
}

}  // namespace moetron::jinja
