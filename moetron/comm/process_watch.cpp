#include "moetron/comm/process_watch.h"

#include <thread>
#include <utility>

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "moetron/comm/join_ranks.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPollInterval{200};
constexpr milliseconds kSignOfLifeTime{1200};  // several polls
constexpr milliseconds kVerdictTime{3000};
constexpr milliseconds kGoodbyeTime{10000};
constexpr milliseconds kGoodbyeTimeAfterFailure{3000};

std::string join_numbers(const std::vector<int>& numbers) {
  std::string text;
  for (int number : numbers) text += concat(text.empty() ? "" : ", ", number);
  return text;
}

class Watcher {
 public:
  Watcher(std::shared_ptr<ProcessWatch> watch, c10::intrusive_ptr<c10d::Store> store)
      : watch_(std::move(watch)), options_(watch_->options), store_(std::move(store)) {}

  void run() {
    try {
      while (!sleep_until_news()) {
        if (!settled() && step()) publish_life_and_learn_verdict();
      }
      say_goodbye();
    } catch (const std::exception& error) {
      const bool rank_0_serves = !options_.agent_serves_store;
      {
        std::lock_guard lock(watch_->mutex);
        if (!watch_->failure) watch_->first_to_notice = watch_->speaks_for_rank_zero();
      }
      settle({rank_0_serves ? 0 : -1,
              concat("the store no longer answers, so ",
                     rank_0_serves ? "rank 0, which serves it," : "the launcher, which serves it,",
                     " has ended (", first_line(error), ")")});
    }
  }

 private:
  bool settled() const {
    std::lock_guard lock(watch_->mutex);
    return watch_->failure.has_value();
  }

  // True when it is time to stop.
  bool sleep_until_news() {
    std::unique_lock lock(watch_->mutex);
    watch_->changed.wait_for(lock, kPollInterval,
                             [&] { return watch_->stop || (watch_->report && !watch_->failure); });
    return watch_->stop && (!watch_->report || watch_->failure);
  }

  // Publishes this rank's report, if there is one and no other rank was first. True when a failure
  // of the world is known that is not settled here.
  bool step() {
    std::optional<Failure> report;
    bool is_known_cause;
    {
      std::lock_guard lock(watch_->mutex);
      report = watch_->report;
      is_known_cause = watch_->is_known_cause;
    }
    if (!report) return store_->check({"failure"});
    const std::string claim = std::to_string(options_.rank);
    if (store_->compareSet("failure", "", claim) != claim) return true;
    {
      std::lock_guard lock(watch_->mutex);
      watch_->first_to_notice = true;
    }
    if (!is_known_cause) report = find_cause(*report);
    store_->set("verdict", concat(report->rank, "\n", report->reason));
    settle(*report);
    return false;
  }

  // Names the ranks that give no sign of life, of which there may be none.
  Failure find_cause(const Failure& noticed) {
    std::vector<int> silent;
    for (int r = 0; r < options_.size; ++r) {
      if (r != options_.rank) silent.push_back(r);
    }
    const auto deadline = steady_clock::now() + kSignOfLifeTime;
    while (!silent.empty() && steady_clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(50));
      std::erase_if(silent, [&](int r) { return store_->check({rank_key("alive", r)}); });
    }
    if (silent.empty()) return noticed;
    return {silent.size() == 1 ? silent[0] : -1,
            concat("rank ", join_numbers(silent), " no longer answer",
                   silent.size() == 1 ? "s" : "", "; noticed by ", noticed.reason)};
  }

  void publish_life_and_learn_verdict() {
    store_->set(rank_key("alive", options_.rank), "1");
    const auto deadline = steady_clock::now() + kVerdictTime;
    while (!store_->check({"verdict"})) {
      if (steady_clock::now() >= deadline) {
        const std::string reporter = store_->get_to_str("failure");
        return settle({-1, concat("rank ", reporter, " reported a failure and fell silent")});
      }
      std::this_thread::sleep_for(milliseconds(50));
    }
    const std::string verdict = store_->get_to_str("verdict");
    const size_t end = verdict.find('\n');
    settle({std::stoi(verdict.substr(0, end)), verdict.substr(end + 1)});
  }

  void settle(const Failure& failure) {
    std::lock_guard lock(watch_->mutex);
    watch_->settle(failure);
  }

  void say_goodbye() {
    store_->set(rank_key("left", options_.rank), "1");
    if (!options_.serves_store) return;
    int failed_rank = options_.rank;
    bool failed = false;
    {
      std::lock_guard lock(watch_->mutex);
      failed = watch_->failure.has_value();
      if (failed) failed_rank = watch_->failure->rank;
    }
    std::vector<std::string> keys;
    for (int r = 0; r < options_.size; ++r) {
      if (r != failed_rank) keys.push_back(rank_key("left", r));
    }
    const auto deadline = steady_clock::now() + (failed ? kGoodbyeTimeAfterFailure : kGoodbyeTime);
    while (!store_->check(keys) && steady_clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(20));
    }
  }

  std::shared_ptr<ProcessWatch> watch_;
  const WorldOptions& options_;
  c10::intrusive_ptr<c10d::Store> store_;
};

}  // namespace

void run_watch(const std::shared_ptr<ProcessWatch>& watch,
               const c10::intrusive_ptr<c10d::Store>& store) {
  Watcher(watch, store).run();
  {
    std::lock_guard lock(watch->mutex);
    watch->ended = true;
  }
  watch->changed.notify_all();
}

}  // namespace moetron
