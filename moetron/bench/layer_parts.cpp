#include "moetron/bench/layer_parts.h"

#include <functional>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/Event.h>

#include "moetron/base/units.h"
#include "moetron/bench/bench_timer.h"

namespace moetron {
namespace {

// Times the steps of a sequence that is run several times. The host does not wait between steps:
// on a GPU they follow each other as in training.
class StepClock {
 public:
  StepClock(c10::Device device, size_t num_steps) : device_(device), ms_(num_steps) {}

  void run(const std::vector<std::function<void()>>& steps) {
    if (device_.is_cpu()) {
      for (size_t i = 0; i < steps.size(); ++i) ms_[i].push_back(measure_ms(device_, steps[i]));
      return;
    }
    const c10::Stream stream = current_stream(device_);
    std::vector<c10::Event>& run = runs_.emplace_back();
    const auto mark = [&] {
      run.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT).record(stream);
    };
    mark();
    for (const auto& step : steps) {
      step();
      mark();
    }
  }

  // Seconds by step, over all runs but the first.
  std::vector<double> medians() {
    for (const std::vector<c10::Event>& run : runs_) {
      run.back().synchronize();
      for (size_t i = 0; i < ms_.size(); ++i) ms_[i].push_back(run[i].elapsedTime(run[i + 1]));
    }
    std::vector<double> seconds;
    for (const std::vector<double>& ms : ms_) {
      seconds.push_back(kMilli * median({ms.begin() + 1, ms.end()}));
    }
    return seconds;
  }

 private:
  c10::Device device_;
  std::vector<std::vector<c10::Event>> runs_;  // of a GPU: before the first step, behind each
  std::vector<std::vector<double>> ms_;        // by step and run
};

// Which part of its layer's time an instruction belongs to.
double& part_of(LayerTimes& times, const Instruction& instruction, NodeRole role) {
  PartTimes& part = role == NodeRole::kAttention      ? times.attention
                    : role == NodeRole::kSharedExpert ? times.shared
                                                      : times.experts;
  if (instruction.pass == Pass::kInputGrad) return part.backward_input;
  return instruction.pass == Pass::kWeightGrad ? part.backward_weight : part.forward;
}

}  // namespace

LayerTimes measure_layers(Chunk& chunk, const MicroBatch& micro_batch, const at::Tensor& hidden,
                          const at::Tensor& d_output, int64_t iterations) {
  const ChunkProgram program = chunk.program();
  InstructionList list = forward_instructions(program, /*fills=*/false);
  const InstructionList backward =
      backward_instructions(program, /*with_weights=*/true, /*fills=*/false);
  list.insert(list.end(), backward.begin(), backward.end());
  StepClock clock(hidden.device(), list.size());
  for (int64_t i = 0; i <= iterations; ++i) {
    ChunkRun run(chunk, micro_batch);
    run.begin_forward({{.data = hidden}}, {});
    std::vector<std::function<void()>> steps;
    for (const Instruction& instruction : list) {
      if (instruction.act != Instruction::Act::kSend) {
        steps.push_back([&] { run.run(instruction); });
      } else if (instruction.of_backward) {
        steps.push_back([&] { run.take_d_inputs(); });
      } else {
        steps.push_back([&] {
          run.take_outputs();
          run.begin_backward({d_output}, {});
        });
      }
    }
    clock.run(steps);
  }
  const std::vector<double> seconds = clock.medians();
  LayerTimes times;
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].act == Instruction::Act::kSend) continue;
    const NodeRole role = program.layer(list[i].layer).node(list[i].node).role;
    part_of(times, list[i], role) += seconds[i] / program.num_layers();
  }
  return times;
}

}  // namespace moetron
