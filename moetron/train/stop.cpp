#include "moetron/train/stop.h"

#include <algorithm>
#include <csignal>
#include <ctime>
#include <unistd.h>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/comm/communicator.h"

namespace moetron {
namespace {

// Signals reach a process, not an object: what they set cannot be a member.
volatile std::sig_atomic_t is_asked = 0;
volatile std::time_t asked_at = 0;

// One request can arrive twice, from the scheduler and again from a launcher that forwards it. Only
// a signal well after the first means that somebody is tired of waiting.
constexpr std::time_t kPatience = 10;  // seconds

extern "C" void on_stop_signal(int number) {
  const std::time_t now = std::time(nullptr);
  if (is_asked != 0 && now - asked_at > kPatience) ::_exit(128 + number);
  if (is_asked == 0) asked_at = now;
  is_asked = 1;
}

}  // namespace

StopRequest::StopRequest(std::filesystem::path save) {
  if (!save.empty()) file_ = std::move(save) / "stop";
  is_asked = 0;
  std::signal(SIGTERM, on_stop_signal);
  std::signal(SIGUSR1, on_stop_signal);
}

StopRequest::~StopRequest() {
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGUSR1, SIG_DFL);
}

StopReason StopRequest::agreed(Communicator& world, bool data_failed, bool time_is_up,
                               std::span<int64_t> numbers) const {
  // Only rank 0 looks at the file: folders of other hosts may show it later.
  std::error_code ignored;
  const bool file_asks =
      world.rank() == 0 && !file_.empty() && std::filesystem::exists(file_, ignored);
  StopReason reason = time_is_up ? StopReason::kTimeIsUp : StopReason::kNone;
  if (is_asked != 0 || file_asks) reason = StopReason::kAsked;
  if (data_failed) reason = StopReason::kDataFailed;
  const at::Tensor most = at::empty({static_cast<int64_t>(numbers.size()) + 1}, at::kLong);
  int64_t* values = most.mutable_data_ptr<int64_t>();
  std::copy(numbers.begin(), numbers.end(), values + 1);
  values[0] = static_cast<int64_t>(reason);
  world.all_reduce(most, ReduceOp::kMax).wait();
  std::copy_n(values + 1, numbers.size(), numbers.begin());
  return static_cast<StopReason>(values[0]);
}

void StopRequest::clear_file() const {
  std::error_code ignored;
  if (!file_.empty()) std::filesystem::remove(file_, ignored);
}

}  // namespace moetron
