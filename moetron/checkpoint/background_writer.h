// A save beside training: the copy that it needs, and the thread and the group of ranks that write.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "moetron/checkpoint/checkpoint.h"
#include "moetron/checkpoint/save_plan.h"
#include "moetron/checkpoint/save_snapshot.h"

namespace moetron {

class Communicator;

// One write at a time. The ranks write over a world of their own (Communicator::separate_world()):
// what fails there fails the write, and not training, whose groups see none of it.
class BackgroundWriter {
 public:
  // Collective over `world`, which outlives the object.
  explicit BackgroundWriter(Communicator& world);
  // A write under way, which an exception leaves behind, gets some seconds to end; then its group
  // is ended, and what hangs even so (on a disk that does not answer) is given up. A lone rank
  // waits.
  ~BackgroundWriter();
  BackgroundWriter(const BackgroundWriter&) = delete;
  BackgroundWriter& operator=(const BackgroundWriter&) = delete;

  // What the thread does: a write_checkpoint() over `exchange` (null: a single rank), and what
  // belongs to it. It may throw.
  using Write = std::function<void(const SavePlan& plan, const SaveSnapshot& snapshot,
                                   Communicator* exchange)>;

  // Copies (SaveSnapshot::copy()) and starts the thread. Nothing must be under way. Collective.
  void start(std::shared_ptr<const SavePlan> plan, const CheckpointContent& content, Write write);

  // SaveSnapshot::hold_changes() of what start() copied.
  void hold_changes() const;

  // The thread has been started, and finish() has not been called.
  bool is_busy() const { return outcome_.valid(); }
  // This rank's part has ended.
  bool is_done() const;
  // Waits for it and returns why it failed; nothing where it did not. Only this rank's word: others
  // may have failed alone.
  std::optional<std::string> finish();

  // After a write that failed on any rank, by all ranks: its group may have ended. Collective.
  void renew_group();

 private:
  // Shared with the thread, which may be left behind.
  struct State {
    SaveSnapshot snapshot;
    std::unique_ptr<Communicator> exchange;  // null: a single rank
  };

  bool ends_within(std::chrono::seconds time) const;

  Communicator& world_;
  std::shared_ptr<State> state_;
  std::thread thread_;
  std::future<std::optional<std::string>> outcome_;  // why it failed
};

}  // namespace moetron
