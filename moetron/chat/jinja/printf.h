// Python's two ways of filling a text: "%s of %d" % values, and "{} of {name}".format(...).
#pragma once

#include <string>

#include "moetron/chat/jinja/arguments.h"
#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

// The conversions s, r, d, i, u, x, X, o, f, F, e, E, g, G, c and %, with flags, width and
// precision.
std::string format_percent(const std::string& format, const Value& values, Budget& budget);

// Fields with !s and !r; format specifications ({:>10}) are refused by name.
std::string format_braces(const std::string& format, const Arguments& arguments, Budget& budget);

}  // namespace moetron::jinja
