// Ranks that were started with different options would wait for each other, or train something
// else.
#pragma once

#include "moetron/base/json.h"

namespace moetron {

class Communicator;

// `options`: options_record() of this rank. Throws ConfigError, on every rank, where an option
// differs between ranks: with its name, two of the ranks and their values. Only where a host keeps
// data, tokenizer and logs, and how many threads a rank has, is its own business. Collective.
void check_same_options(const Json& options, Communicator& world);

}  // namespace moetron
