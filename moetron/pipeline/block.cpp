#include "moetron/pipeline/block.h"

#include <algorithm>

namespace moetron {

void Filler::fill_wait() {
  run_some(share_of_wait(num_tasks_, num_waits_));
  --num_waits_;
}

void Filler::finish() {
  run_some(num_tasks_);
}

void Filler::run_some(size_t count) {
  if (count == 0) return;
  const SpanScope span(trace_, "weights", Pass::kWeightGrad);
  tasks_->run_some(count);
  num_tasks_ -= count;
}

void run_instructions(const InstructionList& list, const StepRuns& runs, Filler filler) {
  using Act = Instruction::Act;
  filler.expect_waits(static_cast<size_t>(
      std::count_if(list.begin(), list.end(),
                    [](const Instruction& instruction) { return instruction.act == Act::kFill; })));
  for (const Instruction& instruction : list) {
    ChunkRun* run = instruction.of_backward ? runs.backward : runs.forward;
    if (instruction.act == Act::kFill) {
      filler.fill_wait();
    } else if (instruction.act != Act::kSend) {
      run->run(instruction);
    } else if (instruction.of_backward) {
      runs.on_d_inputs(run->take_d_inputs());
    } else {
      runs.on_outputs(run->take_outputs());
    }
  }
  filler.finish();
}

std::vector<Value> forward_chunk(ChunkRun& run, std::vector<Value> inputs,
                                 const WalkSettings& settings) {
  std::vector<Value> outputs;
  run.begin_forward(std::move(inputs), settings);
  run_instructions(
      forward_instructions(run.program(), /*fills=*/false),
      {.forward = &run, .on_outputs = [&](std::vector<Value> made) { outputs = std::move(made); }});
  return outputs;
}

std::vector<at::Tensor> backward_chunk(ChunkRun& run, std::vector<at::Tensor> d_outputs,
                                       const WalkSettings& settings) {
  std::vector<at::Tensor> d_inputs;
  run.begin_backward(std::move(d_outputs), settings);
  run_instructions(backward_instructions(run.program(), !settings.defers_weights, /*fills=*/false),
                   {.backward = &run, .on_d_inputs = [&](std::vector<at::Tensor> made) {
                      d_inputs = std::move(made);
                    }});
  return d_inputs;
}

}  // namespace moetron
