#include "moetron/autograd/kernel_profile.h"

#include <set>

#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "moetron/base/error.h"

namespace moetron {

using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

struct KernelProfile::State {
  c10::Device device;
  bool is_recording = true;

  std::unique_ptr<torch::autograd::profiler::ProfilerResult> end() {
    MT_CHECK(is_recording, "a profile ends once");
    is_recording = false;
    if (device.is_cuda()) {
      c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
    }
    return torch::autograd::profiler::disableProfiler();
  }
};

KernelProfile::KernelProfile(c10::Device device, Contents contents) : state_(new State{device}) {
  const bool everything = contents == Contents::kEverything;
  std::set<ActivityType> activities;
  if (everything || !device.is_cuda()) activities.insert(ActivityType::CPU);
  if (device.is_cuda()) activities.insert(ActivityType::CUDA);
  const ProfilerConfig config(ProfilerState::KINETO, /*report_input_shapes=*/false,
                              /*profile_memory=*/everything);
  torch::autograd::profiler::prepareProfiler(config, activities);
  torch::autograd::profiler::enableProfiler(config, activities);
}

KernelProfile::~KernelProfile() {
  if (state_->is_recording) state_->end();
}

std::vector<KernelRun> KernelProfile::kernels() {
  const auto result = state_->end();
  std::vector<KernelRun> runs;
  for (const auto& event : result->events()) {
    if (event.deviceType() != c10::kCUDA) continue;
    runs.push_back({event.name(), static_cast<int64_t>(event.startNs()),
                    static_cast<int64_t>(event.durationNs())});
  }
  return runs;
}

void KernelProfile::save(const std::string& path) {
  state_->end()->save(path);
}

}  // namespace moetron
