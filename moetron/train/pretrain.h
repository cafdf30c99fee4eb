// moetron pretrain and sft: from .bin/.idx files, or conversations, to a trained model directory.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

class Communicator;
struct Options;
struct SampleQuestion;  // train/conversations.h

// Trains until --train-iters, an --exit-interval or a request to stop, on every rank of `world`,
// the model on `device`. Returns the exit code: 0 when done, 75 when stopped on request (0 under
// torchrun, which would take 75 for a fault). Throws Error.
// `questions` (may be null) gets what a model that was fine-tuned may be asked.
int pretrain(const Options& given, Communicator& world, c10::Device device = at::kCPU,
             std::vector<SampleQuestion>* questions = nullptr);

}  // namespace moetron
