// The filters and tests that jinja2 has, as far as they make sense for text that is no HTML.
#pragma once

#include <string>

#include "moetron/chat/jinja/arguments.h"
#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

// Fails for what is no filter ("No filter named 'x' found.") and for what is one and not supported.
Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments,
                   Budget& budget);
bool has_filter(const std::string& name);

bool apply_test(const std::string& name, const Value& value, const Arguments& arguments,
                Budget& budget);
bool has_test(const std::string& name);

// The parts of filters.cpp.
Value filter_text(const std::string& name, const Value& value, const Arguments& arguments,
                  Budget& budget);
Value filter_number(const std::string& name, const Value& value, const Arguments& arguments,
                    Budget& budget);
Value filter_sequence(const std::string& name, const Value& value, const Arguments& arguments,
                      Budget& budget);
Value filter_selection(const std::string& name, const Value& value, const Arguments& arguments,
                       Budget& budget);

}  // namespace moetron::jinja
