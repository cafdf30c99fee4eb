// Which rank writes which block of a checkpoint.
#pragma once

#include <vector>

#include "moetron/checkpoint/file_block.h"

namespace moetron {

// The writer of each block: the rank that holds most of its bytes, as long as it has not reached
// its share (all bytes / `num_ranks`), so that nobody writes more than its share and one block.
// Blocks that one rank alone holds best choose first; replicas then fill up whoever has least to
// write. The same on every rank.
std::vector<int> choose_writers(const BlockList& blocks, int num_ranks);

}  // namespace moetron
