// What a user may have meant by a name that is not known.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moetron {

// The known names that are near: in meaning (what other programs call the same), else in words (all
// of the name's words, and few others), else in spelling (few letters differ). At most three; none
// where nothing is near. Names have hyphens between their words.
std::vector<std::string> near_names(std::string_view name, const std::vector<std::string>& known);

// The same as the end of a sentence: "; the nearest known is --lr", "" where nothing is near.
// `before`: what stands before each name.
std::string suggestion(std::string_view name, const std::vector<std::string>& known,
                       const char* before);

}  // namespace moetron
