// What a template may spend. Templates come from strangers: a loop over loops, a string that
// doubles or a macro that calls itself ends with a sentence, not with the machine's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace moetron::jinja {

// A template's mistake, or ours to refuse it, on the way to whoever knows the line.
struct Failure {
  std::string reason;
};

template <class... Args>
[[noreturn]] void fail(const Args&... args) {
  std::string reason;
  (reason.append(args), ...);
  throw Failure{std::move(reason)};
}

class Budget {
 public:
  // `input_bytes`: of messages and tools; what is fair to spend grows with them.
  explicit Budget(uint64_t input_bytes)
      : steps_(kSteps + 16 * input_bytes), bytes_(kBytes + 256 * input_bytes) {}

  void step(uint64_t count = 1) {
    if (steps_ < count) fail("the template takes too long: it was stopped");
    steps_ -= count;
  }
  // For values that are made, in bytes; making and reading them takes time, too.
  void allocate(uint64_t bytes) {
    if (bytes_ < bytes) fail("the template needs too much memory: it was stopped");
    bytes_ -= bytes;
    step(bytes / 64);
  }
  // For what goes through a text without making one.
  void read(uint64_t bytes) { step(bytes / 64); }

  // Held while something that may contain itself is evaluated.
  class Level {
   public:
    explicit Level(Budget& budget) : budget_(budget) {
      if (++budget_.depth_ > kDepth) {
        --budget_.depth_;
        fail("maximum recursion depth exceeded");
      }
    }
    ~Level() { --budget_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Budget& budget_;
  };

 private:
  static constexpr uint64_t kSteps = 4'000'000;           // about a second
  static constexpr uint64_t kBytes = uint64_t{96} << 20;  // in all, not at a time
  static constexpr int kDepth = 1200;

  uint64_t steps_;
  uint64_t bytes_;
  int depth_ = 0;
};

}  // namespace moetron::jinja
