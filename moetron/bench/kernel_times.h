// Where the time of a GPU goes: its kernels as libtorch's own profiler (kineto) records them, added
// up by what they compute.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/Device.h>

#include "moetron/measure/kernel_profile.h"

namespace moetron {

enum class KernelKind {
  kAttention,
  kDenseGemm,
  kGroupedGemm,
  kPermute,
  kNorm,
  kRope,
  kActivation,
  kRouter,
  kLoss,
  kOptimizer,
  kOther,  // copies, additions, the embedding
};
constexpr size_t kNumKernelKinds = 11;
const char* kernel_kind_name(KernelKind kind);

// By the kernel's (demangled) name, whoever wrote it: ours, ATen's, cuBLAS's, CUTLASS's, cuDNN's.
KernelKind kind_of_kernel(std::string_view name);

struct NamedKernel {
  std::string name;
  int64_t num_runs = 0;
  double ms = 0;
};

struct KernelTimes {
  std::array<double, kNumKernelKinds> ms{};  // by KernelKind; kernels side by side count each
  double idle_ms = 0;                        // no kernel runs
  double span_ms = 0;                        // from the first kernel's start to the last one's end
  int64_t num_runs = 0;
  std::vector<NamedKernel> kernels;  // the longest first
};

KernelTimes sum_kernels(const std::vector<KernelRun>& runs);

// The kernels of `work`, which must have ended on the GPU when it returns. It is called twice: the
// first time the profiler is still setting itself up.
KernelTimes profile_kernels(const std::function<void()>& work, c10::Device device);

// Writes what operators, kernels and allocator do in `work` as a Chrome trace: streams, names,
// memory counters. Kineto only logs a path that it cannot write.
void trace_work(const std::function<void()>& work, c10::Device device, const std::string& path);

}  // namespace moetron
