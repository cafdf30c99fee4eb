// How a router goes from logits to a choice and its weights (moe/router.h says what for).
#pragma once

#include <cstdint>

namespace moetron {

struct RouterRule {
  int64_t top_k = 0;
  bool sigmoid = false;    // scores: sigmoid, or softmax over all experts
  bool normalize = false;  // weights divided by their sum plus `normalize_eps`
  double normalize_eps = 0;
  double scaling = 1;
  int64_t num_groups = 1;
  int64_t group_top_k = 1;
  bool group_score_top_two = false;  // a group's score: its two best summed, or its best
};

}  // namespace moetron
