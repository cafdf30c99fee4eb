#include "moetron/cli/layer_parts.h"

#include <functional>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "moetron/cli/bench_timer.h"

namespace moetron {
namespace {

constexpr double kMilli = 1e-3;

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
    const c10::Stream stream = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
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

// The parts of F and B of a layer in the order in which they run.
class LayerParts {
 public:
  LayerParts(Layer& layer, const MicroBatch& micro_batch, const at::Tensor& d_output)
      : forward_(layer, micro_batch, {}, run_),
        backward_(layer, micro_batch, {}, run_),
        d_output_(d_output) {}

  void attention(const at::Tensor& hidden) { forward_.attention(hidden); }
  void shared_expert() { forward_.shared_expert(); }
  void experts() {
    forward_.experts();
    forward_.finish();
  }
  // The shared expert's own part is taken out of what LayerBackward does in one.
  void shared_input() {
    const at::NoGradGuard no_grad;
    if (run_.shared_expert) run_.shared_expert->backward({d_output_});
  }
  void shared_weight() {
    if (run_.shared_expert) run_.shared_expert->weight_grads().run();
    run_.shared_expert.reset();
  }
  void experts_input() {
    backward_.start(d_output_);
    backward_.experts();
  }
  void experts_weight() { backward_.expert_weights(); }
  void attention_input() { backward_.attention(); }
  void attention_weight() { backward_.attention_weights(); }

 private:
  LayerRun run_;
  LayerForward forward_;
  LayerBackward backward_;
  at::Tensor d_output_;
};

}  // namespace

LayerTimes measure_layer(Layer& layer, const MicroBatch& micro_batch, const at::Tensor& hidden,
                         const at::Tensor& d_output, int64_t iterations) {
  StepClock clock(hidden.device(), 9);
  for (int64_t i = 0; i <= iterations; ++i) {
    LayerParts parts(layer, micro_batch, d_output);
    clock.run({[&] { parts.attention(hidden); }, [&] { parts.shared_expert(); },
               [&] { parts.experts(); }, [&] { parts.shared_input(); },
               [&] { parts.shared_weight(); }, [&] { parts.experts_input(); },
               [&] { parts.experts_weight(); }, [&] { parts.attention_input(); },
               [&] { parts.attention_weight(); }});
  }
  const std::vector<double> seconds = clock.medians();
  LayerTimes times;
  times.attention = {seconds[0], seconds[7], seconds[8]};
  times.experts = {seconds[2], seconds[5], seconds[6]};
  times.shared = {seconds[1], seconds[3], seconds[4]};
  return times;
}

}  // namespace moetron
