#include "moetron/comm/nccl_monitor.h"

#include <algorithm>

namespace moetron {
namespace {

constexpr std::chrono::milliseconds kPollInterval{50};

// All at once: to end one communicator may need room on a GPU that the kernel of another occupies.
void abort_all(const std::vector<std::shared_ptr<NcclGroup>>& groups) {
  std::vector<std::thread> threads;
  for (const auto& group : groups) threads.emplace_back([&group] { group->abort(); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

NcclMonitor::NcclMonitor(std::shared_ptr<ProcessWorld> world) : world_(std::move(world)) {
  subscription_ = world_->subscribe([this] {
    std::lock_guard lock(mutex_);
    world_failed_ = true;
    changed_.notify_all();
  });
  thread_ = std::thread([this] { run(); });
}

NcclMonitor::~NcclMonitor() {
  world_->unsubscribe(subscription_);
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void NcclMonitor::add(std::shared_ptr<NcclGroup> group) {
  std::lock_guard lock(mutex_);
  groups_.push_back(std::move(group));
}

void NcclMonitor::remove(const std::shared_ptr<NcclGroup>& group) {
  std::lock_guard lock(mutex_);
  std::erase(groups_, group);
}

bool NcclMonitor::sleep() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPollInterval, [&] { return stop_ || world_failed_; });
  return !stop_ && !world_failed_;
}

std::vector<std::shared_ptr<NcclGroup>> NcclMonitor::groups() {
  std::lock_guard lock(mutex_);
  return groups_;
}

void NcclMonitor::run() {
  while (sleep()) {
    for (const auto& group : groups()) {
      const auto trouble = group->find_fault(world_->options().timeout);
      if (trouble) world_->publish({-1, *trouble}, false);
    }
  }
  if (world_->failure()) abort_all(groups());
}

}  // namespace moetron
