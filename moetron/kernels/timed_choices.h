// Where a library knows several ways to compute the same, the one that is fastest on this GPU.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include <ATen/ATen.h>

#include "moetron/kernels/choice_hold.h"
#include "moetron/kernels/cuda/fastest.h"
#include "moetron/kernels/device.h"

namespace moetron {

// One set of choices for all threads. While a ChoiceHold lives, none changes, so that what is
// recomputed has the bits of the forward. `Ways` has size() and workspace_bytes(way), and is
// thread-safe.
template <class Shape, class Ways>
class TimedChoices {
 public:
  // Runs the shape's way, that which make() lists first until all have been tried and the fastest
  // is let in (ChoiceHold). They are tried when the shape comes for the second time among those
  // that `may_try`. `run(ways, way, workspace)` launches one on the current stream of the GPU of
  // `on`; to try is to run it again and again.
  template <class Make, class Run>
  void run(const Shape& shape, const at::Tensor& on, bool may_try, const Make& make,
           const Run& run) {
    const Choice choice = choose(shape, on, may_try, make, run);
    const at::Tensor workspace = make_workspace(on, choice.ways->workspace_bytes(choice.way));
    run(*choice.ways, choice.way, workspace.data_ptr());
  }

 private:
  static constexpr size_t kMost = 4096;  // documents of every length make new shapes without end

  struct Found {
    int way = 0;
    int64_t period = 0;  // of holds
  };

  struct Choice {
    std::shared_ptr<const Ways> ways;
    int way = 0;
    int64_t uses = 0;            // that might have tried
    std::optional<Found> found;  // the fastest, until it is let in
  };

  template <class Make, class Run>
  Choice choose(const Shape& shape, const at::Tensor& on, bool may_try, const Make& make,
                const Run& run) {
    const std::lock_guard lock(mutex_);
    // Within a period of holds what was used stays; with the first use in a new one nothing is.
    if (choices_.size() >= kMost && ChoiceHold::lets_in(last_period_)) choices_.clear();
    last_period_ = ChoiceHold::period();
    Choice& choice = choices_[shape];
    if (!choice.ways) choice.ways = make();
    if (may_try && ++choice.uses == 2 && choice.ways->size() > 1) {
      const int64_t period = ChoiceHold::period();
      choice.found = Found{fastest(*choice.ways, on, run), period};
    }
    if (choice.found && ChoiceHold::lets_in(choice.found->period)) {
      choice.way = choice.found->way;
      choice.found.reset();
    }
    return choice;
  }

  template <class Run>
  static int fastest(const Ways& ways, const at::Tensor& on, const Run& run) {
    int64_t bytes = 0;
    for (int i = 0; i < ways.size(); ++i) bytes = std::max(bytes, ways.workspace_bytes(i));
    const at::Tensor workspace = make_workspace(on, bytes);
    return fastest_of(ways.size(), current_stream(on),
                      [&](int i) { run(ways, i, workspace.data_ptr()); });
  }

  static at::Tensor make_workspace(const at::Tensor& on, int64_t bytes) {
    return at::empty({bytes}, on.options().dtype(at::kByte));
  }

  std::mutex mutex_;
  int64_t last_period_ = 0;  // of the last use
  std::map<Shape, Choice> choices_;
};

}  // namespace moetron
