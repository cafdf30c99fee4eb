#include "moetron/comm/gloo_world.h"

#include <algorithm>
#include <cstdlib>
#include <thread>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "moetron/comm/gloo_watch.h"

namespace moetron {
namespace {

constexpr std::chrono::seconds kReportTime{4};  // after which the store is given up
constexpr std::chrono::seconds kEndTime{12};

std::shared_ptr<::gloo::transport::Device> make_device() {
  const char* names = std::getenv("GLOO_SOCKET_IFNAME");
  if (!names || !*names) return c10d::ProcessGroupGloo::createDefaultDevice();
  const std::string first = std::string(names).substr(0, std::string(names).find(','));
  return c10d::ProcessGroupGloo::createDeviceForInterface(first);
}

}  // namespace

void GlooWatch::settle(const Failure& cause) {
  if (failure) return;
  failure = cause;
  for (auto& [id, on_failure] : subscribers) on_failure();
  subscribers.clear();
  changed.notify_all();
}

GlooWorld::GlooWorld(const GlooOptions& options) : watch_(std::make_shared<GlooWatch>(options)) {
  join_ranks(options);
  device_ = make_device();
  std::thread([watch = watch_] { run_watch(watch); }).detach();
}

GlooWorld::~GlooWorld() {
  std::unique_lock lock(watch_->mutex);
  watch_->stop = true;
  watch_->changed.notify_all();
  if (watch_->store_hangs) return;  // with the thread left behind
  watch_->changed.wait_for(lock, kEndTime, [&] { return watch_->ended; });
}

std::optional<Failure> GlooWorld::failure() const {
  std::lock_guard lock(watch_->mutex);
  return watch_->failure;
}

GlooWorld::Verdict GlooWorld::report(const Failure& noticed, bool is_known_cause) {
  std::unique_lock lock(watch_->mutex);
  if (!watch_->report && !watch_->failure) {
    watch_->report = noticed;
    watch_->is_known_cause = is_known_cause;
    watch_->changed.notify_all();
  }
  const bool settled =
      watch_->changed.wait_for(lock, kReportTime, [&] { return watch_->failure.has_value(); });
  if (!settled) {
    watch_->store_hangs = true;
    watch_->settle({noticed.rank, concat(noticed.reason, "; the store does not answer")});
    return {*watch_->failure, true};
  }
  return {*watch_->failure, std::exchange(watch_->first_to_notice, false)};
}

int GlooWorld::subscribe(std::function<void()> on_failure) {
  std::unique_lock lock(watch_->mutex);
  if (watch_->failure) {
    lock.unlock();
    on_failure();
    return -1;
  }
  watch_->subscribers[watch_->num_subscriptions] = std::move(on_failure);
  return watch_->num_subscriptions++;
}

void GlooWorld::unsubscribe(int subscription) {
  std::lock_guard lock(watch_->mutex);
  watch_->subscribers.erase(subscription);
}

}  // namespace moetron
