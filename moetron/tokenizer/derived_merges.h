// The merges of a vocabulary that says only which of two tokens is merged first, by rank or score.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moetron {

// `tokens`: in the order in which they are merged. A token is made of the two that it is merged
// from when it stands alone, for a merge within it never depends on what is around it. One pair for
// each token that is made so, in order of the tokens. A token begins as its bytes or, with
// `by_characters`, its characters (then it is valid UTF-8).
std::vector<std::pair<std::string, std::string>> derive_merges(
    const std::vector<std::string>& tokens, bool by_characters);

}  // namespace moetron
