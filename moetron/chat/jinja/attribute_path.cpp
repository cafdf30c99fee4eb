#include "moetron/chat/jinja/attribute_path.h"

#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {

AttributePath::AttributePath(const Value& path) {
  if (path.is_none()) return;
  if (!path.is_string()) {
    steps_.push_back(path);
    return;
  }
  for (const std::string_view part : split(path.text(), ".", -1, false)) {
    const bool is_number = !part.empty() && part.size() < 10 &&
                           part.find_first_not_of("0123456789") == std::string_view::npos;
    steps_.push_back(is_number ? Value(int64_t{std::stol(std::string(part))})
                               : text_value(std::string(part)));
  }
}

Value AttributePath::get(const Value& item, Budget& budget, const Value& otherwise) const {
  Value value = item;
  for (const Value& step : steps_) {
    value = get_item(value, step, budget);
    if (!otherwise.is_none() && value.is_undefined()) value = otherwise;
  }
  return value;
}

std::vector<AttributePath> attribute_paths(const Value& paths) {
  if (!paths.is_string()) return {AttributePath(paths)};
  std::vector<AttributePath> result;
  for (const std::string_view path : split(paths.text(), ",", -1, false))
    result.emplace_back(text_value(std::string(path)));
  return result;
}

}  // namespace moetron::jinja
