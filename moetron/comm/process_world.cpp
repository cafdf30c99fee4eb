#include "moetron/comm/process_world.h"

#include <thread>

#include "moetron/comm/join_ranks.h"
#include "moetron/comm/process_watch.h"

namespace moetron {
namespace {

constexpr std::chrono::seconds kReportTime{4};  // after which the store is given up
constexpr std::chrono::seconds kEndTime{12};

}  // namespace

void ProcessWatch::settle(const Failure& cause) {
  if (failure) return;
  failure = cause;
  for (auto& [id, on_failure] : subscribers) on_failure();
  subscribers.clear();
  changed.notify_all();
}

ProcessWorld::ProcessWorld(const WorldOptions& options)
    : watch_(std::make_shared<ProcessWatch>(options)) {
  join_ranks(options);
  std::thread([watch = watch_, store = options.store->clone()] {
    run_watch(watch, store);
  }).detach();
}

ProcessWorld::~ProcessWorld() {
  std::unique_lock lock(watch_->mutex);
  watch_->stop = true;
  watch_->changed.notify_all();
  if (watch_->store_hangs) return;  // with the thread left behind
  watch_->changed.wait_for(lock, kEndTime, [&] { return watch_->ended; });
}

std::optional<Failure> ProcessWorld::failure() const {
  std::lock_guard lock(watch_->mutex);
  return watch_->failure;
}

ProcessWorld::Verdict ProcessWorld::report(const Failure& noticed, bool is_known_cause) {
  publish(noticed, is_known_cause);
  return *verdict();
}

void ProcessWorld::publish(const Failure& noticed, bool is_known_cause) {
  std::unique_lock lock(watch_->mutex);
  if (!watch_->report && !watch_->failure) {
    watch_->report = noticed;
    watch_->is_known_cause = is_known_cause;
    watch_->changed.notify_all();
  }
  const bool settled =
      watch_->changed.wait_for(lock, kReportTime, [&] { return watch_->failure.has_value(); });
  if (settled) return;
  watch_->store_hangs = true;
  watch_->first_to_notice = watch_->speaks_for_rank_zero();
  watch_->settle({noticed.rank, concat(noticed.reason, "; the store does not answer")});
}

std::optional<ProcessWorld::Verdict> ProcessWorld::verdict() {
  std::lock_guard lock(watch_->mutex);
  if (!watch_->failure) return std::nullopt;
  return Verdict{*watch_->failure, watch_->first_to_notice};
}

void ProcessWorld::check(const std::string& group, const Operation& operation) {
  if (const std::optional<Verdict> ended = verdict()) {
    throw make_comm_error(options().rank, group, operation, ended->failure, ended->first_to_notice);
  }
}

int ProcessWorld::subscribe(std::function<void()> on_failure) {
  std::unique_lock lock(watch_->mutex);
  if (watch_->failure) {
    lock.unlock();
    on_failure();
    return -1;
  }
  watch_->subscribers[watch_->num_subscriptions] = std::move(on_failure);
  return watch_->num_subscriptions++;
}

void ProcessWorld::unsubscribe(int subscription) {
  std::lock_guard lock(watch_->mutex);
  watch_->subscribers.erase(subscription);
}

CommError explain_connect_error(ProcessWorld& world, const std::string& phase,
                                const std::string& group, const std::exception& error) {
  const std::string what = concat(describe_rank(world.options().rank, phase),
                                  " could not connect group \"", group, "\"");
  const ProcessWorld::Verdict verdict =
      world.report({-1, concat(what, " (", first_line(error), ")")}, false);
  return CommError(concat(what, ": ", verdict.failure.reason), verdict.failure.rank,
                   verdict.first_to_notice);
}

}  // namespace moetron
