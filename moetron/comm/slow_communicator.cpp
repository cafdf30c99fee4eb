#include "moetron/comm/slow_communicator.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <ATen/Parallel.h>

#include "moetron/comm/operation.h"

namespace moetron {
namespace {

using Clock = std::chrono::steady_clock;

// The links of one rank: a thread that calls what is due.
class Links {
 public:
  Links(const LinkSpeed& speed, int world_rank)
      : speed_(speed), random_(speed.seed * 1000003 + static_cast<uint64_t>(world_rank)) {
    thread_ = std::thread([this] { run(); });
  }

  // What is under way still takes its time: peers wait for it.
  ~Links() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  Links(const Links&) = delete;
  Links& operator=(const Links&) = delete;

  // Calls `begin` when the link, free again at `link_free`, has carried the operation.
  void carry(Clock::time_point& link_free, double bytes, bool is_receive,
             std::function<void()> begin) {
    const std::lock_guard lock(mutex_);
    double seconds = std::uniform_real_distribution(0.0, speed_.jitter)(random_);
    if (!is_receive) seconds += speed_.latency + bytes / speed_.bytes_per_second;
    link_free = std::max(link_free, Clock::now()) +
                std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    due_.emplace(link_free, std::move(begin));
    changed_.notify_all();
  }

 private:
  void run() {
    at::set_num_threads(1);
    std::unique_lock lock(mutex_);
    while (!stopped_ || !due_.empty()) {
      if (due_.empty()) {
        changed_.wait(lock);
      } else if (const auto time = due_.begin()->first; time > Clock::now()) {
        changed_.wait_until(lock, time);
      } else {
        const auto next = due_.extract(due_.begin());
        lock.unlock();
        next.mapped()();
        lock.lock();
      }
    }
  }

  const LinkSpeed speed_;
  std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  std::mt19937_64 random_;
  std::multimap<Clock::time_point, std::function<void()>> due_;  // of equals the first issued first
  bool stopped_ = false;
  std::thread thread_;
};

class SlowWork : public PendingWork {
 public:
  explicit SlowWork(std::future<std::shared_ptr<PendingWork>> begun) : begun_(std::move(begun)) {}

  void wait() override {
    if (const auto work = begun_.get()) work->wait();
  }

 private:
  std::future<std::shared_ptr<PendingWork>> begun_;
};

class SlowCommunicator : public Communicator {
 public:
  SlowCommunicator(std::unique_ptr<Communicator> behind, std::shared_ptr<Links> links)
      : Communicator(context_of(*behind), behind->name(), behind->rank(), behind->members()),
        behind_(std::move(behind)),
        links_(std::move(links)) {}

 private:
  std::shared_ptr<PendingWork> start(std::shared_ptr<Operation> operation) override {
    if (size() == 1) return start_on(*behind_, std::move(operation));
    const bool is_receive = operation->kind == OperationKind::kRecv;
    const auto bytes = static_cast<double>(operation->bytes_sent(rank(), size()));
    auto task = std::make_shared<std::packaged_task<std::shared_ptr<PendingWork>()>>(
        [behind = behind_, operation = std::move(operation)] {
          return start_on(*behind, operation);
        });
    auto work = std::make_shared<SlowWork>(task->get_future());
    links_->carry(link_free_, bytes, is_receive, [task] { (*task)(); });
    return work;
  }

  std::unique_ptr<Communicator> make_subgroup(const std::string&, const std::string& group_name,
                                              int, std::vector<int> world_ranks) override {
    std::vector<int> ranks;
    for (const int world_rank : world_ranks) {
      const auto place = std::find(members().begin(), members().end(), world_rank);
      ranks.push_back(static_cast<int>(place - members().begin()));
    }
    return std::make_unique<SlowCommunicator>(behind_->subgroup(ranks, group_name), links_);
  }

  std::unique_ptr<Communicator> make_separate_world(const std::string& key) override {
    return behind_->separate_world(key);
  }

  void poison(const std::string& reason) override { behind_->abort(reason); }

  std::shared_ptr<Communicator> behind_;
  std::shared_ptr<Links> links_;
  Clock::time_point link_free_;
};

}  // namespace

std::unique_ptr<Communicator> slow_down(std::unique_ptr<Communicator> world,
                                        const LinkSpeed& speed) {
  auto links = std::make_shared<Links>(speed, world->world_rank());
  return std::make_unique<SlowCommunicator>(std::move(world), std::move(links));
}

}  // namespace moetron
