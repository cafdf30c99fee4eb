// Small texts that every rank of a group gets from all.
#pragma once

#include <string>
#include <vector>

namespace moetron {

class Communicator;

// The texts of all ranks, by rank. Collective.
std::vector<std::string> gather_texts(Communicator& group, const std::string& text);

}  // namespace moetron
