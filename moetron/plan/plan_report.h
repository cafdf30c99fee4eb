// What a search for a layout found, as text for people and as JSON.
#pragma once

#include <string>

#include "moetron/base/json.h"
#include "moetron/plan/search.h"

namespace moetron {

// Lines, the last without a line end: how many layouts were looked at, the proposals with times,
// memory and what each has over the next, and the faster ones that do not fit.
std::string describe(const SearchResult& result, const Hardware& hardware);
Json to_json(const SearchResult& result, const Hardware& hardware);

// "no layout of 64 ranks fits: closest comes TP 8, ..., which would hold 93.10 GB of a GPU's 80.00
// GB"; of a result without proposals.
std::string describe_nothing_fits(const SearchResult& result, const Hardware& hardware,
                                  int64_t world_size);

// "TP 1, TPE 1, EP 8, PP 4, dualpipev, layers 2 3 3 3 2 3 3 3, micro-batch 1, overlap_deepep"
std::string describe(const Layout& layout);

}  // namespace moetron
