// The search among the policies of capped lists: so many that none needs to be clever.
#pragma once

#include "moetron/schedule/capped_list.h"

namespace moetron {

struct CappedSearch {
  int num_ranks = 1;
  int num_micro_batches = 1;
  double communication = 0;
  int activation_cap = 2;     // at least 2: then there is a list
  int max_steps = 4'000'000;  // of all lists tried, together: half a second
};

// The fastest list found that holds no more than the cap: the same wherever it is searched.
CappedList find_capped_list(const CappedSearch& search);

}  // namespace moetron
