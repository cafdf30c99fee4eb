// What a GPU did, by libtorch's own profiler (kineto): kernels and copies by name, on their
// streams.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <c10/core/Device.h>

namespace moetron {

// One run of a kernel, or a copy of memory. Times in nanoseconds.
struct KernelRun {
  std::string name;
  int64_t start = 0;
  int64_t duration = 0;
};

// Records from its making on: one at a time in a process, made and ended in the same thread, in
// which no MemoryMeter may live (they share a slot of libtorch's). The first recording of a process
// misses what happens while the profiler sets itself up.
class KernelProfile {
 public:
  enum class Contents {
    kKernels,
    kEverything,  // operators of the host and what the allocators hold, too
  };
  KernelProfile(c10::Device device, Contents contents);
  ~KernelProfile();
  KernelProfile(const KernelProfile&) = delete;
  KernelProfile& operator=(const KernelProfile&) = delete;

  // Ends the recording, once, when the GPU has done what it was given.
  std::vector<KernelRun> kernels();
  // Ends it too; writes a Chrome trace with a track a stream and memory counters.
  void save(const std::string& path);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moetron
