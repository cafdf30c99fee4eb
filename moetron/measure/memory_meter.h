// Measures the tensor memory that a thread holds, by what it was allocated for. libtorch's
// allocators report each allocation and release of a thread while a meter lives in it (the hook of
// its profiler), on CPUs and GPUs alike.
#pragma once

#include <memory>
#include <string>

#include "moetron/metrics/activation_memory.h"

namespace moetron {

class MemoryMeter {
 public:
  MemoryMeter();   // from here on, in this thread
  ~MemoryMeter();  // to here
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;

  // What was allocated since the start and is alive now, by purpose, and the most that was alive
  // at once so far. Memory that was allocated outside of any scope is "other".
  ActivationMemory measure() const;

 private:
  friend class MemoryScope;
  class Reporter;
  std::shared_ptr<Reporter> reporter_;
};

// What is allocated within the scope has its purpose. A null meter does nothing.
class MemoryScope {
 public:
  MemoryScope(MemoryMeter* meter, const std::string& purpose);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  std::shared_ptr<MemoryMeter::Reporter> reporter_;
  size_t previous_ = 0;
};

}  // namespace moetron
