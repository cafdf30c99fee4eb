// What all communicators of one process share: the store, and the watch over the other ranks.
//
// A failure travels by the store: the rank that notices one writes it there, and every rank looks
// there a few times a second, so that also ranks with healthy connections stop waiting. All answer
// with a sign of life; who gives none is dead or stopped, and named as the cause: of a killed
// process, its peers know only that a connection broke.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "moetron/comm/operation.h"
#include "moetron/comm/world_options.h"

namespace moetron {

// What a rank and the thread that watches the store tell each other.
struct ProcessWatch {
  explicit ProcessWatch(const WorldOptions& world_options) : options(world_options) {}

  // Ends the world and calls the subscribers; the first failure stays. Called under the mutex, so
  // that no subscriber leaves while it is called.
  void settle(const Failure& cause);

  // Without a store the ranks cannot agree who noticed first. Where rank 0 served it, rank 0 is
  // gone, and the next rank counts as the first.
  bool speaks_for_rank_zero() const { return !options.agent_serves_store && options.rank == 1; }

  const WorldOptions options;
  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  bool stop = false;
  bool ended = false;              // the thread has done its last work
  bool store_hangs = false;        // the thread did not publish a report in time
  std::optional<Failure> report;   // what this rank noticed, for the thread to publish
  bool is_known_cause = false;     // the report is the whole story: nobody else is to be suspected
  bool first_to_notice = false;    // this rank's report came before any other's
  std::optional<Failure> failure;  // what ended the world
  std::map<int, std::function<void()>> subscribers;
  int num_subscriptions = 0;
};

class ProcessWorld {
 public:
  // Meets the other ranks in the store. Throws as join_ranks().
  explicit ProcessWorld(const WorldOptions& options);
  // Says goodbye; the rank that serves the store stays some seconds until all have.
  ~ProcessWorld();
  ProcessWorld(const ProcessWorld&) = delete;
  ProcessWorld& operator=(const ProcessWorld&) = delete;

  const WorldOptions& options() const { return watch_->options; }

  // What ended the world, if anything has; for those that do not speak.
  std::optional<Failure> failure() const;

  struct Verdict {
    Failure failure;
    bool first_to_notice;
  };
  // Reports a failure that this rank noticed to all ranks, and returns what ended the world: this,
  // or what was reported before. Takes up to some seconds. With `is_known_cause` the report is
  // taken as it is; else the ranks that give no sign of life are named as its cause.
  Verdict report(const Failure& noticed, bool is_known_cause);
  // The same by a thread that cannot throw: check() then tells what came of it.
  void publish(const Failure& noticed, bool is_known_cause);
  // Throws CommError, on behalf of an operation of `group`, when the world has ended.
  void check(const std::string& group, const Operation& operation);

  // `on_failure` is called once, in another thread, when the world fails; here if it has.
  int subscribe(std::function<void()> on_failure);
  void unsubscribe(int subscription);

 private:
  std::optional<Verdict> verdict();

  std::shared_ptr<ProcessWatch> watch_;  // outlives this where the store hangs
};

// What it means that a group could not be connected: reports it to all ranks.
CommError explain_connect_error(ProcessWorld& world, const std::string& phase,
                                const std::string& group, const std::exception& error);

}  // namespace moetron
