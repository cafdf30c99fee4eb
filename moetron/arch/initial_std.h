// How large fresh weights are, as in Megatron.
#pragma once

#include <string_view>

#include "moetron/arch/model_config.h"

namespace moetron {

// The standard deviation that a fresh matrix of this Hugging Face name is drawn with:
// initializer_range, and of the products whose results are added to the residual stream (of
// attention, and the second one of dense, shared and routed experts' MLPs) that over
// sqrt(2 layers), so that the sum over the layers does not grow with their number.
double initial_std(const ModelConfig& config, std::string_view tensor);

}  // namespace moetron
