#include "moetron/comm/thread_communicator.h"

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <tuple>

#include "moetron/comm/local_execution.h"
#include "moetron/comm/operation.h"

namespace moetron {
namespace {

// Where the members' parts of one operation meet.
struct Meeting {
  explicit Meeting(int size) : parts(size) {}

  std::vector<std::shared_ptr<Operation>> parts;  // by rank of the group; null: not there yet
  int num_arrived = 0;
  bool done = false;
};

struct ThreadGroup {
  std::map<int64_t, std::shared_ptr<Meeting>> collectives;  // by place in the issue order
  // Messages of one (source, destination, tag): those that wait for their other end.
  std::map<std::tuple<int, int, int>, std::deque<std::shared_ptr<Meeting>>> messages;
};

}  // namespace

class ThreadWorld {
 public:
  ThreadWorld(int num_ranks, std::chrono::milliseconds wait_limit)
      : size(num_ranks), timeout(wait_limit) {}

  // True for the first failure, which is the one kept. Called under the mutex.
  bool fail(Failure cause) {
    if (failure) return false;
    failure = std::move(cause);
    changed.notify_all();
    return true;
  }

  const int size;
  const std::chrono::milliseconds timeout;
  std::mutex mutex;  // guards everything below
  std::condition_variable changed;
  std::optional<Failure> failure;
  std::map<std::string, std::weak_ptr<ThreadGroup>> groups;
  std::map<std::string, std::shared_ptr<ThreadWorld>> separate_worlds;
};

namespace {

// What a Work needs to know of its communicator, which it may outlive.
struct Place {
  std::shared_ptr<ThreadWorld> world;
  std::string group;
  std::vector<int> members;
  int rank;
};

class ThreadWork : public PendingWork {
 public:
  ThreadWork(std::shared_ptr<const Place> place, std::shared_ptr<Operation> operation,
             std::shared_ptr<Meeting> meeting)
      : place_(std::move(place)), operation_(std::move(operation)), meeting_(std::move(meeting)) {}

  void wait() override {
    ThreadWorld& world = *place_->world;
    std::unique_lock lock(world.mutex);
    world.changed.wait_for(lock, world.timeout,
                           [&] { return meeting_->done || world.failure.has_value(); });
    if (meeting_->done) return;
    const bool first = world.fail({-1, describe_timeout()});
    throw make_comm_error(world_rank(), place_->group, *operation_, *world.failure, first);
  }

 private:
  int world_rank() const { return place_->members[place_->rank]; }

  std::string describe_timeout() const {
    std::string missing;
    for (size_t r = 0; r < meeting_->parts.size(); ++r) {
      if (!meeting_->parts[r]) missing += concat(missing.empty() ? "" : ", ", missing_rank(r));
    }
    return concat(describe_rank(world_rank(), *operation_->phase), " waited ",
                  place_->world->timeout.count() / 1000.0, " s in vain for rank ", missing);
  }

  // A message's meeting has the places {source, destination}.
  int missing_rank(size_t part) const {
    const bool is_message =
        operation_->kind == OperationKind::kSend || operation_->kind == OperationKind::kRecv;
    return place_->members[is_message ? operation_->peer : static_cast<int>(part)];
  }

  std::shared_ptr<const Place> place_;
  std::shared_ptr<Operation> operation_;
  std::shared_ptr<Meeting> meeting_;
};

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<RankContext> rank_context, std::shared_ptr<ThreadWorld> world,
                     const std::string& key, const std::string& group_name, int group_rank,
                     std::vector<int> world_ranks)
      : Communicator(std::move(rank_context), group_name, group_rank, std::move(world_ranks)),
        place_(std::make_shared<Place>(Place{std::move(world), name(), members(), rank()})) {
    std::lock_guard lock(place_->world->mutex);
    std::weak_ptr<ThreadGroup>& shared = place_->world->groups[key];
    group_ = shared.lock();
    if (!group_) shared = group_ = std::make_shared<ThreadGroup>();
  }

 private:
  std::shared_ptr<PendingWork> start(std::shared_ptr<Operation> operation) override {
    ThreadWorld& world = *place_->world;
    for (const at::Tensor& tensor : {operation->output, operation->input}) {
      MT_CHECK(size() == 1 || !tensor.defined() || tensor.is_cpu(),
               "ranks that are threads move tensors of CPUs, not of ", tensor.device());
    }
    const bool is_send = operation->kind == OperationKind::kSend;
    const bool is_message = is_send || operation->kind == OperationKind::kRecv;
    std::unique_lock lock(world.mutex);
    if (world.failure) {
      throw make_comm_error(world_rank(), name(), *operation, *world.failure, false);
    }
    auto meeting = is_message ? meet_message(*operation) : meet_collective();
    const int part = is_message ? (is_send ? 0 : 1) : rank();
    meeting->parts[part] = operation;
    if (++meeting->num_arrived == static_cast<int>(meeting->parts.size())) {
      lock.unlock();
      std::optional<Failure> mismatch = try_execute(*meeting);
      lock.lock();
      if (mismatch) {
        const bool first = world.fail(*std::move(mismatch));
        throw make_comm_error(world_rank(), name(), *operation, *world.failure, first);
      }
      meeting->done = true;
      world.changed.notify_all();
    }
    return std::make_shared<ThreadWork>(place_, std::move(operation), std::move(meeting));
  }

  std::optional<Failure> try_execute(const Meeting& meeting) const {
    try {
      execute_together(meeting.parts);
      return std::nullopt;
    } catch (const std::exception& error) {
      return Failure{-1, error.what()};
    }
  }

  std::shared_ptr<Meeting> meet_collective() {
    const int64_t place_in_order = num_collectives_++;
    std::shared_ptr<Meeting>& entry = group_->collectives[place_in_order];
    if (!entry) entry = std::make_shared<Meeting>(size());
    std::shared_ptr<Meeting> meeting = entry;
    if (meeting->num_arrived + 1 == size()) group_->collectives.erase(place_in_order);
    return meeting;
  }

  // The oldest message of this pair and tag whose other end is there and this end is not.
  std::shared_ptr<Meeting> meet_message(const Operation& operation) {
    const bool is_send = operation.kind == OperationKind::kSend;
    const int source = is_send ? rank() : operation.peer;
    const int destination = is_send ? operation.peer : rank();
    auto& waiting = group_->messages[{source, destination, operation.tag}];
    if (!waiting.empty() && !waiting.front()->parts[is_send ? 0 : 1]) {
      std::shared_ptr<Meeting> meeting = waiting.front();
      waiting.pop_front();
      return meeting;
    }
    waiting.push_back(std::make_shared<Meeting>(2));
    return waiting.back();
  }

  std::unique_ptr<Communicator> make_subgroup(const std::string& key, const std::string& group_name,
                                              int group_rank,
                                              std::vector<int> world_ranks) override {
    return std::make_unique<ThreadCommunicator>(context(), place_->world, key, group_name,
                                                group_rank, std::move(world_ranks));
  }

  std::unique_ptr<Communicator> make_separate_world(const std::string& key) override {
    ThreadWorld& world = *place_->world;
    std::shared_ptr<ThreadWorld> made;
    {
      std::lock_guard lock(world.mutex);
      std::shared_ptr<ThreadWorld>& entry = world.separate_worlds[key];
      if (!entry) entry = std::make_shared<ThreadWorld>(world.size, world.timeout);
      made = entry;
    }
    return join_thread_world(made, rank());
  }

  void poison(const std::string& reason) override {
    const std::string who = describe_rank(world_rank(), phase());
    std::lock_guard lock(place_->world->mutex);
    place_->world->fail({world_rank(), concat(who, ": ", reason)});
  }

  std::shared_ptr<const Place> place_;
  std::shared_ptr<ThreadGroup> group_;
  int64_t num_collectives_ = 0;
};

}  // namespace

std::shared_ptr<ThreadWorld> make_thread_world(int size, std::chrono::milliseconds timeout) {
  MT_CHECK(size > 0, "a world of ", size, " ranks");
  return std::make_shared<ThreadWorld>(size, timeout);
}

std::unique_ptr<Communicator> join_thread_world(const std::shared_ptr<ThreadWorld>& world,
                                                int rank) {
  std::vector<int> members(world->size);
  std::iota(members.begin(), members.end(), 0);
  return std::make_unique<ThreadCommunicator>(std::make_shared<RankContext>(rank), world, "",
                                              "world", rank, std::move(members));
}

}  // namespace moetron
