#include "moetron/measure/kernel_profile.h"

#include <set>

#include <c10/core/impl/VirtualGuardImpl.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"

namespace moetron {

using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

namespace {

// What libtorch writes at each allocation, which viewers show as a mark without its numbers.
constexpr const char* kMemoryEvent = "[memory]";

// A mark of that kind as a point of a curve.
Json memory_counter(const Json& event) {
  const Json& args = event.at("args");
  const bool is_gpu = args.at("Device Type").get<int>() == static_cast<int>(c10::kCUDA);
  const auto mebibytes = [&](const char* name) { return args.at(name).get<double>() / (1 << 20); };
  Json values{{"allocated", mebibytes("Total Allocated")}};
  if (is_gpu) values["reserved"] = mebibytes("Total Reserved");
  return {{"ph", "C"},
          {"name", is_gpu ? "memory of the GPU, MiB" : "memory of the host, MiB"},
          {"pid", event.at("pid")},
          {"ts", event.at("ts")},
          {"args", values}};
}

}  // namespace

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
  Json trace = read_json(path);
  Json& events = trace.at("traceEvents");
  for (size_t i = 0, count = events.size(); i < count; ++i) {
    if (events[i].value("name", "") == kMemoryEvent) events.push_back(memory_counter(events[i]));
  }
  write_file(path, trace.dump());
}

}  // namespace moetron
