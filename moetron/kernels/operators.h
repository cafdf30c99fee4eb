// Which operators compute. A run chooses once, and every operation's SegmentRun carries the choice.
#pragma once

namespace moetron {

// kFastest: kernels of ours and fused ones of libraries where they apply, else ATen's operators.
// kPlain: ATen's single operators everywhere, the reference that the others are compared with.
enum class Operators { kFastest, kPlain };

struct OperatorChoice {
  Operators attention = Operators::kFastest;  // the mixing of values alone
  Operators others = Operators::kFastest;
};

}  // namespace moetron
