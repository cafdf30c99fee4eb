// What all gloo communicators of one rank share: the store, and the watch over the other ranks.
//
// A failure travels by the store: the rank that notices one writes it there, and every rank looks
// there a few times a second, so that also ranks with healthy connections stop waiting. All answer
// with a sign of life; who gives none is dead or stopped, and named as the cause: of a killed
// process, its peers know only that a connection broke.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "moetron/comm/gloo_communicator.h"
#include "moetron/comm/operation.h"

namespace gloo::transport {
class Device;
}

namespace moetron {

// What a rank and the thread that watches the store tell each other.
struct GlooWatch {
  explicit GlooWatch(const GlooOptions& gloo_options) : options(gloo_options) {}

  // Ends the world and calls the subscribers; the first failure stays. Called under the mutex, so
  // that no subscriber leaves while it is called.
  void settle(const Failure& cause);

  const GlooOptions options;
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

class GlooWorld {
 public:
  // Meets the other ranks in the store. Throws ConfigError as make_gloo_world().
  explicit GlooWorld(const GlooOptions& options);
  // Says goodbye; the rank that serves the store stays some seconds until all have.
  ~GlooWorld();
  GlooWorld(const GlooWorld&) = delete;
  GlooWorld& operator=(const GlooWorld&) = delete;

  const GlooOptions& options() const { return watch_->options; }
  const std::shared_ptr<::gloo::transport::Device>& device() const { return device_; }

  // What ended the world, if anything has.
  std::optional<Failure> failure() const;

  struct Verdict {
    Failure failure;
    bool first_to_notice;
  };
  // Reports a failure that this rank noticed to all ranks, and returns what ended the world: this,
  // or what was reported before. Takes up to some seconds. With `is_known_cause` the report is
  // taken as it is; else the ranks that give no sign of life are named as its cause.
  Verdict report(const Failure& noticed, bool is_known_cause);

  // `on_failure` is called once, in another thread, when the world fails; here if it has.
  int subscribe(std::function<void()> on_failure);
  void unsubscribe(int subscription);

 private:
  std::shared_ptr<GlooWatch> watch_;  // outlives this where the store hangs
  std::shared_ptr<::gloo::transport::Device> device_;
};

}  // namespace moetron
