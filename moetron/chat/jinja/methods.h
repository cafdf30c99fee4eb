// Methods of texts, lists and dictionaries.
#pragma once

#include <string>

#include "moetron/chat/jinja/arguments.h"
#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

// Whether Python's type has the method, and whether the immutable sandbox lets templates have it.
enum class MethodStanding { kNone, kUnsafe, kThere };
MethodStanding method_standing(const Value& value, const std::string& name);

// Fails for methods that are not supported, by name.
Value call_method(const Value& self, const std::string& name, const Arguments& arguments,
                  Budget& budget);

// str.replace, charged before it is made; all places where `most` is negative.
Value make_replaced(const std::string& text, const std::string& from, const std::string& to,
                    int64_t most, Budget& budget);

}  // namespace moetron::jinja
