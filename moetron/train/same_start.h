// Ranks that were started with different options, programs or files would wait for each other, or
// train something else.
#pragma once

#include <string>

#include "moetron/base/json.h"

namespace moetron {

class Communicator;

// What a rank tells of its start before ranks connect (comm/world_options.h): the program, how many
// ranks it counts, and of `options`, an options_record(), all but where a host keeps data,
// tokenizer and logs, and how many threads a rank has, which are its own business.
std::string greeting_text(const Json& options, int num_ranks);

// A sentence that names the first thing in which rank `rank`, which greets with `other`, differs
// from rank 0, which greets with `mine`: with both values. Empty: nothing.
std::string name_difference(const std::string& mine, const std::string& other, int rank);

// `files`: describe_files() of this rank. Throws ConfigError, on every rank, where the content of
// one differs between ranks: with its place on rank 0, the two contents and the other rank.
// Collective.
void check_same_files(const Json& files, Communicator& world);

}  // namespace moetron
