#include "moetron/schedule/unbuffered_sends.h"

#include <deque>

#include "moetron/base/error.h"
#include "moetron/schedule/message.h"

namespace moetron {
namespace {

// As messages keep their order, to count them is enough.
struct Channel {
  int num_sent = 0;
  int num_taken = 0;

  bool has_next() const { return num_sent > num_taken; }
  bool is_sending() const { return num_sent > num_taken + 1; }  // a receive is not yet posted
};

class UnbufferedRun {
 public:
  explicit UnbufferedRun(const Schedule& schedule)
      : schedule_(schedule),
        num_ranks_(schedule.steps.size()),
        channels_(2 * num_ranks_ * num_ranks_),
        next_step_(num_ranks_, 0),
        last_sends_(num_ranks_) {}

  void run() {
    for (size_t rank = 0; rank < num_ranks_; ++rank) awake_.push_back(static_cast<int>(rank));
    while (!awake_.empty()) {
      const int rank = awake_.front();
      awake_.pop_front();
      while (try_step(rank)) {
      }
    }
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      const StepList& list = schedule_.steps[rank];
      const size_t at = next_step_[rank];
      MT_CHECK(at == list.size(), name_of(schedule_.kind), ": rank ", rank,
               " waits for good before ", describe(list[at]), ", step ", at,
               ", as messages are not buffered");
    }
  }

 private:
  // Null for what does not leave the rank.
  Channel* channel_of(const std::optional<Message>& message) {
    if (!message) return nullptr;
    const auto from = static_cast<size_t>(sender(schedule_.placement, *message));
    const auto to = static_cast<size_t>(receiver(schedule_.placement, *message));
    if (from == to) return nullptr;
    return &channels_[(from * num_ranks_ + to) * 2 + message->is_forward];
  }

  bool try_step(int rank) {
    const Placement& placement = schedule_.placement;
    const StepList& list = schedule_.steps[static_cast<size_t>(rank)];
    size_t& at = next_step_[static_cast<size_t>(rank)];
    if (at == list.size()) return false;
    std::vector<Channel*>& last_sends = last_sends_[static_cast<size_t>(rank)];
    for (const Channel* channel : last_sends) {
      if (channel->is_sending()) return false;
    }
    for (const Action& action : actions_of(list[at])) {
      const Channel* channel = channel_of(needed_by(placement, rank, action));
      if (channel && !channel->has_next()) return false;
    }
    last_sends.clear();
    for (const Action& action : actions_of(list[at])) {
      const auto needed = needed_by(placement, rank, action);
      if (Channel* channel = channel_of(needed)) {
        ++channel->num_taken;
        awake_.push_back(sender(placement, *needed));
      }
      const auto made = made_by(placement, rank, action);
      if (Channel* channel = channel_of(made)) {
        ++channel->num_sent;
        last_sends.push_back(channel);
        awake_.push_back(receiver(placement, *made));
      }
    }
    ++at;
    return true;
  }

  const Schedule& schedule_;
  size_t num_ranks_;
  std::vector<Channel> channels_;  // by sender, receiver, is_forward
  std::vector<size_t> next_step_;
  std::vector<std::vector<Channel*>> last_sends_;  // of each rank's last step
  std::deque<int> awake_;                          // ranks that may be able to go on
};

}  // namespace

void check_unbuffered_sends(const Schedule& schedule) {
  UnbufferedRun(schedule).run();
}

}  // namespace moetron
