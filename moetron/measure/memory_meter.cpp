#include "moetron/measure/memory_meter.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace moetron {

class MemoryMeter::Reporter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* place, int64_t size, size_t, size_t, c10::Device) override {
    if (size > 0) {
      blocks_[place] = {purpose_, size};
      add(purpose_, size);
    } else if (const auto block = blocks_.find(place); block != blocks_.end()) {
      add(block->second.first, -block->second.second);
      blocks_.erase(block);
    }  // else it was allocated before the meter began
  }
  bool memoryProfilingEnabled() const override { return true; }

  // The purpose from here on; returns the one before.
  size_t enter(const std::string& purpose) {
    const auto found = std::find_if(live_.begin(), live_.end(), [&](const ActivationBytes& entry) {
      return entry.purpose == purpose;
    });
    const auto index = static_cast<size_t>(found - live_.begin());
    if (found == live_.end()) live_.push_back({purpose, 0});
    return std::exchange(purpose_, index);
  }
  void leave(size_t previous) { purpose_ = previous; }

  ActivationMemory measure() const {
    ActivationMemory memory{{}, peak_};
    for (const ActivationBytes& entry : live_) {
      if (entry.bytes != 0) memory.kept.push_back(entry);
    }
    return memory;
  }

 private:
  void add(size_t purpose, int64_t bytes) {
    live_[purpose].bytes += bytes;
    total_ += bytes;
    peak_ = std::max(peak_, total_);
  }

  std::unordered_map<void*, std::pair<size_t, int64_t>> blocks_;  // purpose and size
  std::vector<ActivationBytes> live_ = {{"other", 0}};
  size_t purpose_ = 0;  // in live_
  int64_t total_ = 0;
  int64_t peak_ = 0;
};

MemoryMeter::MemoryMeter() : reporter_(std::make_shared<Reporter>()) {
  c10::ThreadLocalDebugInfo::_push(c10::DebugInfoKind::PROFILER_STATE, reporter_);
}

MemoryMeter::~MemoryMeter() {
  c10::ThreadLocalDebugInfo::_pop(c10::DebugInfoKind::PROFILER_STATE);
}

ActivationMemory MemoryMeter::measure() const {
  return reporter_->measure();
}

MemoryScope::MemoryScope(MemoryMeter* meter, const std::string& purpose) {
  if (meter == nullptr) return;
  reporter_ = meter->reporter_;
  previous_ = reporter_->enter(purpose);
}

MemoryScope::~MemoryScope() {
  if (reporter_) reporter_->leave(previous_);
}

}  // namespace moetron
