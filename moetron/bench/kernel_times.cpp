#include "moetron/bench/kernel_times.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr double kMs = 1e-6;  // of a nanosecond

// A kernel is of the first kind that a part of its name, in small letters, tells. The order
// matters: "qk_norm_rope" is a rope, CUTLASS's grouped product also says "gemm".
struct NamePart {
  const char* part;
  KernelKind kind;
};
constexpr NamePart kNameParts[] = {
    {"memcpy", KernelKind::kOther},
    {"memset", KernelKind::kOther},
    {"embedding", KernelKind::kOther},
    {"cudnn", KernelKind::kAttention},
    {"sdpa", KernelKind::kAttention},
    {"flash", KernelKind::kAttention},
    {"fmha", KernelKind::kAttention},
    {"attention", KernelKind::kAttention},
    {"adam", KernelKind::kOptimizer},
    {"multi_tensor", KernelKind::kOptimizer},
    {"grad_norm", KernelKind::kOptimizer},
    {"square", KernelKind::kOptimizer},
    {"groupproblemshape", KernelKind::kGroupedGemm},
    {"grouped", KernelKind::kGroupedGemm},
    {"weight_grad_groups", KernelKind::kGroupedGemm},
    {"fp8_gemm_kernel", KernelKind::kGroupedGemm},  // dense ones are cuBLASLt's
    {"router", KernelKind::kRouter},
    {"topk", KernelKind::kRouter},
    {"bincount", KernelKind::kRouter},
    {"histogram", KernelKind::kRouter},
    {"sigmoid", KernelKind::kRouter},
    {"softmax_warp", KernelKind::kRouter},  // of short rows: experts, not a vocabulary
    {"cross_entropy", KernelKind::kLoss},
    {"softmax", KernelKind::kLoss},
    {"nll_loss", KernelKind::kLoss},
    {"swiglu", KernelKind::kActivation},
    {"silu", KernelKind::kActivation},
    {"rope", KernelKind::kRope},
    {"latent_keys", KernelKind::kRope},
    {"norm", KernelKind::kNorm},
    {"gammabeta", KernelKind::kNorm},         // ATen's backward of a norm: its weight,
    {"computegradinput", KernelKind::kNorm},  // and its input
    {"gemm", KernelKind::kDenseGemm},
    {"gemv", KernelKind::kDenseGemm},
    {"nvjet", KernelKind::kDenseGemm},
    {"cutlass", KernelKind::kDenseGemm},
    {"xmma", KernelKind::kDenseGemm},
    {"cublas", KernelKind::kDenseGemm},
    {"splitk", KernelKind::kDenseGemm},
    {"row_map", KernelKind::kPermute},
    {"sum_rows", KernelKind::kPermute},
    {"permute", KernelKind::kPermute},
    {"gather", KernelKind::kPermute},
    {"scatter", KernelKind::kPermute},
    {"index", KernelKind::kPermute},
    {"sort", KernelKind::kPermute},
    {"scan", KernelKind::kPermute},
};

// How long at least one of the runs lasts. Runs in the order of their starts.
int64_t busy_time(const std::vector<KernelRun>& runs) {
  int64_t busy = 0, end = 0;
  for (const KernelRun& run : runs) {
    const int64_t begin = std::max(end, run.start);
    end = std::max(end, run.start + run.duration);
    busy += std::max<int64_t>(0, end - begin);
  }
  return busy;
}

}  // namespace

const char* kernel_kind_name(KernelKind kind) {
  switch (kind) {
    case KernelKind::kAttention:
      return "attention";
    case KernelKind::kDenseGemm:
      return "dense GEMM";
    case KernelKind::kGroupedGemm:
      return "grouped GEMM";
    case KernelKind::kPermute:
      return "permute";
    case KernelKind::kNorm:
      return "norm";
    case KernelKind::kRope:
      return "rope";
    case KernelKind::kActivation:
      return "activation";
    case KernelKind::kRouter:
      return "router";
    case KernelKind::kLoss:
      return "loss";
    case KernelKind::kOptimizer:
      return "optimizer";
    case KernelKind::kOther:
      return "copy, other";
  }
  throw InternalError("unknown kind of kernel");
}

KernelKind kind_of_kernel(std::string_view name) {
  std::string small(name);
  for (char& c : small) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const NamePart& known : kNameParts) {
    if (small.find(known.part) != std::string::npos) return known.kind;
  }
  return KernelKind::kOther;
}

KernelTimes sum_kernels(const std::vector<KernelRun>& runs) {
  KernelTimes times;
  if (runs.empty()) return times;
  std::vector<KernelRun> in_order = runs;
  std::sort(in_order.begin(), in_order.end(),
            [](const KernelRun& a, const KernelRun& b) { return a.start < b.start; });
  std::map<std::string, NamedKernel> by_name;
  int64_t end = 0;
  for (const KernelRun& run : in_order) {
    const double ms = static_cast<double>(run.duration) * kMs;
    times.ms[static_cast<size_t>(kind_of_kernel(run.name))] += ms;
    NamedKernel& named = by_name[run.name];
    ++named.num_runs;
    named.ms += ms;
    end = std::max(end, run.start + run.duration);
  }
  const int64_t span = end - in_order.front().start;
  times.num_runs = static_cast<int64_t>(runs.size());
  times.span_ms = static_cast<double>(span) * kMs;
  times.idle_ms = static_cast<double>(span - busy_time(in_order)) * kMs;
  for (auto& [name, named] : by_name) {
    named.name = name;
    times.kernels.push_back(named);
  }
  std::sort(times.kernels.begin(), times.kernels.end(),
            [](const NamedKernel& a, const NamedKernel& b) { return a.ms > b.ms; });
  return times;
}

KernelTimes profile_kernels(const std::function<void()>& work, c10::Device device) {
  const auto record = [&] {
    KernelProfile profile(device, KernelProfile::Contents::kKernels);
    work();
    return profile.kernels();
  };
  record();
  return sum_kernels(record());
}

void trace_work(const std::function<void()>& work, c10::Device device, const std::string& path) {
  KernelProfile profile(device, KernelProfile::Contents::kEverything);
  work();
  profile.save(path);
}

}  // namespace moetron
