// What a fine-tuned model answers, when its run is done.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/config/options.h"
#include "moetron/train/conversations.h"

namespace moetron {

// Loads the newest checkpoint of --save on this process, and lets it answer the first
// sft.sample_answers of the questions, greedily; then says how to talk to it. What keeps it from
// answering is a warning: the run is done.
void show_sample_answers(const Options& options, const std::vector<SampleQuestion>& questions,
                         c10::Device device);

}  // namespace moetron
