// Templates as text to templates as trees.
#pragma once

#include <string_view>

#include "moetron/chat/jinja/lexer.h"
#include "moetron/chat/jinja/nodes.h"

namespace moetron::jinja {

// `source` is UTF-8. Throws SyntaxFailure: what jinja2 would not parse, and by name what is not
// supported here (include, import, extends, block, autoescape).
Template parse(std::string_view source);

}  // namespace moetron::jinja
