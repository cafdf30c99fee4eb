// What a fine-tuned model answers, when its run is done.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"
#include "moetron/config/options.h"
#include "moetron/train/conversations.h"

namespace moetron {

// Loads the newest checkpoint of --save, divided among the ranks as it was trained, and lets it
// answer the first sft.sample_answers of the questions, greedily; then says how to talk to it. What
// keeps it from answering is a warning: the run is done. Collective over `world`, with the same
// questions on every rank, which may be unusable afterwards.
void show_sample_answers(const Options& options, const std::vector<SampleQuestion>& questions,
                         Communicator& world, c10::Device device);

}  // namespace moetron
