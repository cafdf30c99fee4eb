#include "moetron/comm/gloo_communicator.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <numeric>
#include <thread>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "moetron/comm/gloo_collectives.h"
#include "moetron/comm/gloo_link.h"
#include "moetron/comm/local_execution.h"
#include "moetron/comm/operation.h"
#include "moetron/comm/process_world.h"
#include "moetron/comm/staging.h"

namespace moetron {
namespace {

// One group's connections, with what an error message needs.
struct GlooGroup {
  std::shared_ptr<ProcessWorld> world;
  GlooDevice device;
  std::string name;
  std::vector<int> members;
  std::unique_ptr<GlooLink> link;

  int world_rank() const { return world->options().rank; }

  CommError make_error(const Operation& operation, const ProcessWorld::Verdict& verdict) const {
    return make_comm_error(world_rank(), name, operation, verdict.failure, verdict.first_to_notice);
  }

  // What a broken exchange means: reports it to all ranks, and learns what came first.
  CommError explain(const Operation& operation, const TransferError& error) const {
    const std::string symptom =
        concat(describe_rank(world_rank(), *operation.phase), " in ",
               operation_name(operation.kind), " of group \"", name, "\", waiting for rank ",
               members[error.peer], " (", error.what(), ")");
    return make_error(operation, world->report({-1, symptom}, false));
  }
};

class QueuedWork : public PendingWork {
 public:
  void wait() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
    if (error_) std::rethrow_exception(error_);
  }

  void finish(std::exception_ptr error) {
    std::lock_guard lock(mutex_);
    done_ = true;
    error_ = std::move(error);
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::exception_ptr error_;
};

class ReceiveWork : public PendingWork {
 public:
  ReceiveWork(std::shared_ptr<GlooGroup> group, std::shared_ptr<Operation> operation,
              Transfer transfer)
      : group_(std::move(group)),
        operation_(std::move(operation)),
        transfer_(std::move(transfer)) {}

  void wait() override {
    try {
      group_->link->wait(transfer_);
    } catch (const TransferError& error) {
      throw group_->explain(*operation_, error);
    }
  }

 private:
  std::shared_ptr<GlooGroup> group_;
  std::shared_ptr<Operation> operation_;
  Transfer transfer_;
};

// A thread that runs tasks of one group in the order of their issue.
class TaskQueue {
 public:
  explicit TaskQueue(std::shared_ptr<GlooGroup> group)
      : group_(std::move(group)), thread_([this] { run(); }) {}

  ~TaskQueue() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  // `task` is what finishes the operation, which is kept until then.
  std::shared_ptr<PendingWork> push(std::shared_ptr<Operation> operation,
                                    std::function<void()> task) {
    auto work = std::make_shared<QueuedWork>();
    {
      std::lock_guard lock(mutex_);
      queue_.push_back({std::move(operation), std::move(task), work});
    }
    changed_.notify_all();
    return work;
  }

 private:
  struct Entry {
    std::shared_ptr<Operation> operation;
    std::function<void()> task;
    std::shared_ptr<QueuedWork> work;
  };

  void run() {
    while (true) {
      Entry entry;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;
        entry = std::move(queue_.front());
        queue_.pop_front();
      }
      entry.work->finish(run_one(entry));
    }
  }

  std::exception_ptr run_one(const Entry& entry) {
    try {
      entry.task();
      return nullptr;
    } catch (const TransferError& error) {
      return std::make_exception_ptr(group_->explain(*entry.operation, error));
    } catch (const std::exception& error) {
      const std::string who = describe_rank(group_->world_rank(), *entry.operation->phase);
      const Failure failure = {group_->world_rank(), concat(who, ": ", error.what())};
      return std::make_exception_ptr(
          group_->make_error(*entry.operation, group_->world->report(failure, true)));
    }
  }

  std::shared_ptr<GlooGroup> group_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> queue_;
  bool stop_ = false;
  std::thread thread_;
};

class GlooCommunicator : public Communicator {
 public:
  GlooCommunicator(std::shared_ptr<RankContext> rank_context, std::shared_ptr<ProcessWorld> world,
                   GlooDevice device, const std::string& key, const std::string& group_name,
                   int group_rank, std::vector<int> world_ranks)
      : Communicator(std::move(rank_context), group_name, group_rank, std::move(world_ranks)),
        group_(std::make_shared<GlooGroup>(
            GlooGroup{std::move(world), std::move(device), name(), members(), {}})) {
    if (size() == 1) return;
    connect(key);
    collectives_ = std::make_unique<TaskQueue>(group_);
    subscription_ = group_->world->subscribe([link = group_->link.get()] { link->abort(); });
  }

  ~GlooCommunicator() override {
    collectives_.reset();  // runs what has been issued
    sends_.reset();
    if (group_->link) group_->world->unsubscribe(subscription_);
  }

 private:
  void connect(const std::string& key) {
    try {
      group_->link =
          std::make_unique<GlooLink>(group_->world->options(), group_->device, key, rank(), size());
    } catch (const std::exception& error) {
      throw explain_connect_error(*group_->world, phase(), name(), error);
    }
  }

  std::shared_ptr<PendingWork> start(std::shared_ptr<Operation> operation) override {
    group_->world->check(name(), *operation);
    if (size() == 1) {
      execute_together({operation});
      return nullptr;
    }
    return run_staged(operation, at::kCPU,
                      [this](const auto& on_host) { return start_on_host(on_host); });
  }

  std::shared_ptr<PendingWork> start_on_host(const std::shared_ptr<Operation>& operation) {
    const bool is_send = operation->kind == OperationKind::kSend;
    if (is_send || operation->kind == OperationKind::kRecv) return start_message(operation);
    return collectives_->push(
        operation, [link = group_->link.get(), operation] { run_collective(*link, *operation); });
  }

  std::shared_ptr<PendingWork> start_message(const std::shared_ptr<Operation>& operation) {
    const bool is_send = operation->kind == OperationKind::kSend;
    const at::Tensor& tensor = is_send ? operation->input : operation->output;
    const Message message = {tensor.data_ptr(), static_cast<int64_t>(tensor.nbytes())};
    try {
      if (!is_send) {
        return std::make_shared<ReceiveWork>(
            group_, operation, group_->link->recv(message, operation->peer, operation->tag));
      }
      // Gloo gives up a message whose work is dropped, so somebody waits for each.
      if (!sends_) sends_ = std::make_unique<TaskQueue>(group_);
      Transfer transfer = group_->link->send(message, operation->peer, operation->tag);
      return sends_->push(operation,
                          [link = group_->link.get(), transfer] { link->wait(transfer); });
    } catch (const TransferError& error) {
      throw group_->explain(*operation, error);
    }
  }

  std::unique_ptr<Communicator> make_subgroup(const std::string& key, const std::string& group_name,
                                              int group_rank,
                                              std::vector<int> world_ranks) override {
    return std::make_unique<GlooCommunicator>(context(), group_->world, group_->device, key,
                                              group_name, group_rank, std::move(world_ranks));
  }

  std::unique_ptr<Communicator> make_separate_world(const std::string& key) override {
    return make_separate_gloo_world(group_->world->options(), key);
  }

  void poison(const std::string& reason) override {
    const std::string who = describe_rank(world_rank(), phase());
    group_->world->report({world_rank(), concat(who, ": ", reason)}, true);
  }

  std::shared_ptr<GlooGroup> group_;
  std::unique_ptr<TaskQueue> collectives_;
  std::unique_ptr<TaskQueue> sends_;  // from the first on
  int subscription_ = -1;
};

}  // namespace

std::unique_ptr<Communicator> make_gloo_world(const GlooOptions& options) {
  MT_CHECK(options.rank >= 0 && options.rank < options.size, "rank ", options.rank,
           " of a world of ", options.size);
  std::vector<int> members(options.size);
  std::iota(members.begin(), members.end(), 0);
  GlooDevice device = open_gloo_device();  // may be refused: before others count on this rank
  auto world = std::make_shared<ProcessWorld>(options);
  auto communicator = std::make_unique<GlooCommunicator>(
      std::make_shared<RankContext>(options.rank), std::move(world), std::move(device), "", "world",
      options.rank, std::move(members));
  // Who still connects waits for the store, without a limit where rank 0, which serves it, is
  // stopped: nobody goes on before all are connected.
  communicator->barrier();
  return communicator;
}

std::unique_ptr<Communicator> make_separate_gloo_world(const WorldOptions& world,
                                                       const std::string& key) {
  WorldOptions options = world;
  options.store = c10::make_intrusive<c10d::PrefixStore>(concat("world/", key), world.store);
  options.serves_store = false;  // the first world stays until its ranks have left
  options.greeting = {};         // they have met
  return make_gloo_world(options);
}

}  // namespace moetron
