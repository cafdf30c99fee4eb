// Threads that share numbered pieces of work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace moetron {

// Calls work(0) ... work(count - 1), each once, in about this order, from `num_threads` threads,
// the caller's among them. The first exception keeps what has not begun from beginning, and is
// thrown when all threads have stopped.
template <class Work>
void parallel_for(int num_threads, uint64_t count, const Work& work) {
  std::atomic<uint64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto take_pieces = [&] {
    for (uint64_t piece; (piece = next++) < count;) {
      try {
        work(piece);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        next = count;
      }
    }
  };
  std::vector<std::thread> threads;
  const uint64_t num_helpers =
      num_threads > 1 && count > 1
          ? std::min<uint64_t>(static_cast<uint64_t>(num_threads), count) - 1
          : 0;
  try {
    while (threads.size() < num_helpers) threads.emplace_back(take_pieces);
  } catch (const std::system_error&) {
    // The system gives no more of them: those that there are do the work.
  }
  take_pieces();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace moetron
