#include "moetron/comm/thread_ranks.h"

#include <exception>
#include <mutex>
#include <thread>

#include <ATen/Parallel.h>

#include "moetron/comm/thread_communicator.h"

namespace moetron {
namespace {

// libtorch keeps one number of compute threads for threads that have not asked yet, and OpenMP one
// per thread. Rank threads set both to 1; this puts the caller's back.
class ComputeThreadsScope {
 public:
  ComputeThreadsScope() : previous_(at::get_num_threads()) {}
  ~ComputeThreadsScope() { at::set_num_threads(previous_); }
  ComputeThreadsScope(const ComputeThreadsScope&) = delete;
  ComputeThreadsScope& operator=(const ComputeThreadsScope&) = delete;

 private:
  int previous_;
};

class FirstException {
 public:
  void set(std::exception_ptr exception) {
    std::lock_guard lock(mutex_);
    if (!first_) first_ = std::move(exception);
  }
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace

void run_ranks_with(int size, const std::function<std::unique_ptr<Communicator>(int rank)>& join,
                    const std::function<void(Communicator& world)>& rank_main) {
  ComputeThreadsScope restore;
  FirstException first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);
      std::unique_ptr<Communicator> world;
      try {
        world = join(rank);
        rank_main(*world);
      } catch (const std::exception& error) {
        first.set(std::current_exception());
        if (world) world->abort(error.what());
      } catch (...) {
        first.set(std::current_exception());
        if (world) world->abort("an unknown exception");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  first.rethrow();
}

void run_ranks(int size, const std::function<void(Communicator& world)>& rank_main,
               std::chrono::milliseconds timeout) {
  const std::shared_ptr<ThreadWorld> world = make_thread_world(size, timeout);
  run_ranks_with(
      size, [&](int rank) { return join_thread_world(world, rank); }, rank_main);
}

}  // namespace moetron
