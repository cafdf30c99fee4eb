// The fastest layouts of a run that fit: first a bound of every one, then simulations of those that
// the bound leaves.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "moetron/plan/candidates.h"
#include "moetron/plan/dry_run.h"
#include "moetron/run/layout.h"

namespace moetron {

// A layout that a run may have, as it was dry-run.
struct Proposal {
  Layout layout;
  RunSpec spec;
  DryRun run;
};

struct SearchResult {
  std::vector<Proposal> proposals;   // the fastest first; no two of the same mesh and schedule
  std::vector<Candidate> misses;     // may be faster than any, and nearly fit; the fastest first
  std::optional<Candidate> closest;  // holds least; where there is no proposal
  int64_t num_candidates = 0;        // that divide the model and the batch
  int64_t num_fitting = 0;
  int64_t num_simulated = 0;
  // No candidate that was not simulated can be faster than the last proposal.
  bool is_complete = false;
};

struct SearchSettings {
  size_t num_proposals = 10;
  size_t num_misses = 3;
  double max_steps = 25e6;  // of all schedules that are simulated, by all ranks
  size_t num_threads = 2;
};

// Resolves the run in a layout as a start would; throws ConfigError where that would refuse it.
using ResolveLayout = std::function<RunSpec(const Layout&)>;

// `model`: the run in any layout. The result depends on the arguments alone, not on the number of
// threads; `resolve` is called by several at once.
SearchResult search_layouts(const RunSpec& model, const LayoutSpace& space,
                            const Hardware& hardware, const ResolveLayout& resolve,
                            const SearchSettings& settings = {});

}  // namespace moetron
