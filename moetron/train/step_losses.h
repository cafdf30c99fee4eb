// The losses of a step, from what each rank of a stage and of a pipeline saw of them.
#pragma once

#include <cstdint>

#include "moetron/base/error.h"
#include "moetron/pipeline/executor.h"

namespace moetron {

class Mesh;
class Model;

// A loss or gradient that is not a number: training stops before the optimizer sees it. The exit
// code asks launchers not to restart, since the same data would end in the same way.
class NonFiniteError : public Error {
 public:
  explicit NonFiniteError(const std::string& message) : Error(kExitDoNotRestart, message) {}
};

struct LossSums {
  double loss = 0;      // over the labelled tokens of the global batch
  double aux_loss = 0;  // aux losses, coefficient included, times tokens
};

// Sums on their way: nobody has waited for the device yet.
class PendingLosses {
 public:
  PendingLosses(at::Tensor gathered, Mesh& mesh, int64_t step)
      : gathered_(std::move(gathered)), mesh_(&mesh), step_(step) {}
  // Waits. Throws NonFiniteError naming the step and a rank.
  LossSums finish() const;

 private:
  at::Tensor gathered_;  // [ranks of the stage, 1 + layers] fp64, see sum_losses()
  Mesh* mesh_;
  int64_t step_;
};

// Sums in fp64: of a rank's micro-batches in their order, layer by layer; then over the layers, and
// over the ranks of a stage in their order, so that every division of the layers gives the same
// bits. Collective over stage and pipeline.
PendingLosses sum_losses(const PipelineOutcome& outcome, Model& model, Mesh& mesh, int64_t step);

}  // namespace moetron
