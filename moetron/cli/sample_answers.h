// What a fine-tuned model answers, between its steps and when its run is done.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"
#include "moetron/config/options.h"
#include "moetron/train/answer_sampling.h"

namespace moetron {

// Answers the first so many of the questions greedily, by the model that is trained, divided as it
// is (AnswerSampling::make).
std::unique_ptr<AnswerSampler> sample_answers_of(Model& model, Mesh& mesh, const RunSpec& spec,
                                                 const Tokenizer& tokenizer,
                                                 const std::vector<SampleQuestion>& questions,
                                                 int64_t count);

// Loads the newest checkpoint of --save, divided among the ranks as it was trained, and lets it
// answer the first sft.sample_answers of the questions, greedily; then says how to talk to it. What
// keeps it from answering is a warning: the run is done. Collective over `world`, with the same
// questions on every rank, which may be unusable afterwards.
void show_sample_answers(const Options& options, const std::vector<SampleQuestion>& questions,
                         Communicator& world, c10::Device device);

}  // namespace moetron
