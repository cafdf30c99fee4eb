// Requests to stop: SIGTERM, SIGUSR1, or the file SAVE/stop. They take effect at a step's end, when
// all ranks have agreed; a second signal, ten
// seconds or more after the first, ends the process at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace moetron {

class Communicator;

// Whether what is done every so many steps is due; never for an interval of 0.
constexpr bool is_multiple(int64_t step, int64_t interval) {
  return interval > 0 && step % interval == 0;
}

enum class StopReason { kNone, kTimeIsUp, kAsked, kDataFailed };

class StopRequest {
 public:
  // Takes over the two signals for the object's life. `save` may be empty: then only signals count.
  explicit StopRequest(std::filesystem::path save);
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  // Collective: the most urgent reason of any rank, on every rank. `data_failed`: this rank cannot
  // read what the next step needs. `time_is_up`: the run has lasted as long as it may. What else
  // ranks have to agree on at a step's end goes with it: each of `numbers` becomes the greatest of
  // all ranks.
  StopReason agreed(Communicator& world, bool data_failed, bool time_is_up = false,
                    std::span<int64_t> numbers = {}) const;
  // Takes SAVE/stop away, so that the same command resumes. Rank 0 calls it after saving.
  void clear_file() const;

 private:
  std::filesystem::path file_;
};

}  // namespace moetron
