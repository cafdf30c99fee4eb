// moetron pretrain: from .bin/.idx files to a trained model directory.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

class Communicator;
struct Options;

// Trains until --train-iters, an --exit-interval or a request to stop, on every rank of `world`,
// the model on `device`. Returns the exit code: 0 when done, 75 when stopped on request (0 under
// torchrun, which would take 75 for a fault). Throws Error.
int pretrain(const Options& options, Communicator& world, c10::Device device = at::kCPU);

}  // namespace moetron
