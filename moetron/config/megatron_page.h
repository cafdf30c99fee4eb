// docs/from-megatron.md: what Megatron's options, and those of the guide, do here.
#pragma once

#include <string>

namespace moetron {

// Where the generated part of the page begins; what is in front of it is written by hand.
inline constexpr const char* kMegatronPageMark =
    "<!-- From here on the page is written from the table of options: MOETRON_WRITE_DOCS=1 "
    "config_test -->\n";

// The generated part, the mark included.
std::string megatron_page();

}  // namespace moetron
