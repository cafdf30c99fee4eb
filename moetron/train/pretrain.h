// moetron pretrain and sft: from .bin/.idx files, or conversations, to a trained model directory.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

class Communicator;
struct Options;
struct AnswerSampling;  // train/answer_sampling.h

// Trains until --train-iters, an --exit-interval or a request to stop, on every rank of `world`,
// the model on `device`. Returns the exit code: 0 when done, 75 when stopped on request (0 under
// torchrun, which would take 75 for a fault). Throws Error.
// `sampling` (may be null): of a model that is fine-tuned.
int pretrain(const Options& given, Communicator& world, c10::Device device = at::kCPU,
             AnswerSampling* sampling = nullptr);

}  // namespace moetron
