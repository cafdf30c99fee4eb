// What `moetron convert` may be asked for: choices of options that the convert room knows, too.
#pragma once

namespace moetron {

enum class ModelFormat { kHf, kMegatron, kTorchDist };
// Of the weights that are written; kStored: each as it is.
enum class WeightDtype { kStored, kBf16, kFp16, kFp32, kFp8 };

}  // namespace moetron
