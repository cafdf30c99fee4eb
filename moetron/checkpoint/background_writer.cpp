#include "moetron/checkpoint/background_writer.h"

#include <filesystem>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/comm/communicator.h"

namespace moetron {
namespace {

constexpr std::chrono::seconds kPatience{10};

template <class Work>
std::optional<std::string> failure_of(const Work& work) {
  try {
    work();
    return std::nullopt;
  } catch (const std::filesystem::filesystem_error& error) {
    return describe(error);
  } catch (const std::exception& error) {
    return first_line(error);
  }
}

}  // namespace

BackgroundWriter::BackgroundWriter(Communicator& world)
    : world_(world), state_(std::make_shared<State>()) {
  renew_group();
}

BackgroundWriter::~BackgroundWriter() {
  if (!is_busy()) return;
  Communicator* exchange = state_->exchange.get();
  bool ends = exchange == nullptr || ends_within(kPatience);
  if (!ends) {
    exchange->abort("the run ends");
    ends = ends_within(kPatience);
  }
  if (ends) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

void BackgroundWriter::renew_group() {
  state_->exchange.reset();
  if (world_.size() > 1) state_->exchange = world_.separate_world("save");
}

void BackgroundWriter::start(std::shared_ptr<const SavePlan> plan, const CheckpointContent& content,
                             Write write) {
  MT_CHECK(!is_busy(), "a save begins before the last one has ended");
  state_->snapshot.copy(*plan, content);
  std::packaged_task<std::optional<std::string>()> task(
      [state = state_, plan = std::move(plan), write = std::move(write)] {
        return failure_of([&] { write(*plan, state->snapshot, state->exchange.get()); });
      });
  outcome_ = task.get_future();
  thread_ = std::thread(std::move(task));
}

void BackgroundWriter::hold_changes() const {
  if (is_busy()) state_->snapshot.hold_changes();
}

bool BackgroundWriter::ends_within(std::chrono::seconds time) const {
  return outcome_.wait_for(time) == std::future_status::ready;
}

bool BackgroundWriter::is_done() const {
  return ends_within(std::chrono::seconds(0));
}

std::optional<std::string> BackgroundWriter::finish() {
  std::optional<std::string> failure = outcome_.get();
  thread_.join();
  return failure;
}

}  // namespace moetron
