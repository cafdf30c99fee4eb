#include "moetron/train/long_work.h"

#include <chrono>
#include <future>

#include "moetron/checkpoint/collective.h"
#include "moetron/comm/communicator.h"

namespace moetron {

void on_rank_zero_for_long(Communicator* world, const std::function<void()>& work) {
  constexpr std::chrono::seconds kLook{10};
  std::future<void> done;
  if (world == nullptr || world->rank() == 0) done = std::async(std::launch::async, work);
  const auto look = [&]() -> int64_t {
    if (done.wait_for(kLook) != std::future_status::ready) return 0;
    done.get();
    return 1;
  };
  while (on_rank_zero(world, look) == 0) {
  }
}

}  // namespace moetron
