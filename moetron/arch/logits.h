// How the head of a model goes through a large vocabulary: what computes it and what plans for it
// must agree.
#pragma once

#include <cstdint>

namespace moetron {

// The fused loss makes the logits of so many tokens at once as fit into this, and their gradient in
// their place.
inline constexpr int64_t kLogitBytes = int64_t{512} << 20;

}  // namespace moetron
