// "user.name" or "items.0": how filters say what of their items they mean.
#pragma once

#include <string>
#include <vector>

#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

class AttributePath {
 public:
  AttributePath() = default;                  // the item itself
  explicit AttributePath(const Value& path);  // None: the item itself; else a text or a number

  // What the path leads to from an item; with `otherwise`, that where a step leads nowhere.
  Value get(const Value& item, Budget& budget, const Value& otherwise = {}) const;

 private:
  std::vector<Value> steps_;
};

// Of "name,age": several paths.
std::vector<AttributePath> attribute_paths(const Value& paths);

}  // namespace moetron::jinja
