#include "moetron/train/run_saves.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/log.h"
#include "moetron/base/seconds_since.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/write_checkpoint.h"
#include "moetron/comm/communicator.h"
#include "moetron/train/host_room.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

std::string readable_bytes(double bytes) {
  return bytes < 1e9 ? formatted("%.3g MB", bytes / 1e6) : formatted("%.3g GB", bytes / 1e9);
}

// Writes over `exchange` and removes what the rule does not keep; returns the seconds that the
// write took.
double write_and_tidy(const fs::path& folder, int64_t step, const KeepRule& keep,
                      const SavePlan& plan, const SaveSnapshot& snapshot, Communicator* exchange) {
  const auto begin = std::chrono::steady_clock::now();
  write_checkpoint(folder, step, plan, snapshot, exchange);
  const double seconds = seconds_since(begin);
  if (plan.rank() == 0) remove_old_checkpoints(folder, keep, step);
  return seconds;
}

}  // namespace

RunSaves::RunSaves(const StartSpec& start, const SaveSpec& spec, const CheckpointContent& content,
                   bool owns_folder, Communicator& world, BackgroundWriter* writer,
                   std::function<void(const std::string& line)> say)
    : folder_(start.save),
      spec_(spec),
      keep_{.last = spec.keep_last, .every = spec.keep_every, .loaded = start.load},
      world_(world),
      writer_(writer),
      say_(std::move(say)),
      plan_(std::make_shared<const SavePlan>(plan_save(content, &world))) {
  on_rank_zero(&world_, [&] {
    if (owns_folder) remove_leftovers(folder_);
    check_can_save(folder_, *plan_);
    return 0;
  });
}

std::string RunSaves::description() const {
  std::error_code ignored;  // what cannot be told is not worth a failure
  const fs::space_info space = fs::space(folder_, ignored);
  const double each = static_cast<double>(std::max<uint64_t>(plan_->bytes(), 1));
  std::string text = concat(readable_bytes(each), " each");
  if (!ignored) {
    const double available = static_cast<double>(space.available);
    text += concat("; ", static_cast<int64_t>(available / each), " fit into the ",
                   readable_bytes(available), " that are free");
  }
  if (spec_.keep_last > 0 || spec_.keep_every > 0) {
    text += concat("; the newest ", std::max<int64_t>(spec_.keep_last, 1), " stay");
    if (spec_.keep_every > 0) text += concat(", and every one of a multiple of ", spec_.keep_every);
  }
  return text;
}

void RunSaves::save(int64_t step, const std::function<CheckpointContent()>& make_content,
                    bool is_last) {
  wait_for_writer();
  const auto begin = Clock::now();
  CheckpointContent content = make_content();
  if (!plan_fits(*plan_, content, &world_)) {
    plan_ = std::make_shared<const SavePlan>(plan_save(content, &world_));
  }
  const auto bytes = static_cast<double>(std::max<uint64_t>(plan_->bytes(), 1));
  const SaveRecord record{.step = step,
                          .bytes = static_cast<int64_t>(plan_->bytes()),
                          .crossed = static_cast<double>(plan_->bytes_crossing()) / bytes};
  if (is_last || writer_ == nullptr || !has_room_for_copy()) {
    write_now(record, std::move(content), begin, is_last);
  } else {
    begin_write(record, content, begin);
  }
}

// Looked at once, at the first save: by then the run has taken what it needs.
bool RunSaves::has_room_for_copy() {
  if (has_room_) return *has_room_;
  const HostMemory tightest =
      tightest_host(this_host(static_cast<int64_t>(plan_->bytes_given())), world_);
  has_room_ = tightest.needed <= tightest.available;
  if (!*has_room_) {
    say_(concat("async-save: a copy of what ", tightest.host, " saves takes ",
                readable_bytes(static_cast<double>(tightest.needed)), ", and it has ",
                readable_bytes(static_cast<double>(tightest.available)),
                " of memory left: training waits for each save"));
  }
  return *has_room_;
}

void RunSaves::begin_write(const SaveRecord& record, const CheckpointContent& content,
                           Clock::time_point begin) {
  under_way_ = record;
  const auto write = [folder = folder_, keep = keep_, step = record.step, seconds = write_seconds_](
                         const SavePlan& plan, const SaveSnapshot& snapshot,
                         Communicator* exchange) {
    if (exchange != nullptr) exchange->set_phase(concat("writing step ", step));
    *seconds = write_and_tidy(folder, step, keep, plan, snapshot, exchange);
  };
  writer_->start(plan_, content, write);
  under_way_->stall_seconds = seconds_since(begin);
}

void RunSaves::write_now(SaveRecord record, CheckpointContent content, Clock::time_point begin,
                         bool is_last) {
  SaveSnapshot snapshot;  // training waits for the write, so nothing need be copied
  snapshot.borrow(*plan_, std::move(content));
  try {
    record.write_seconds = write_and_tidy(folder_, record.step, keep_, *plan_, snapshot, &world_);
  } catch (const Error& error) {
    // All ranks have the same one, but for what is no fault of the disk's.
    const bool is_of_disk =
        error.exit_code() == kExitConfig || error.exit_code() == kExitCorruptInput;
    if (!is_of_disk) throw;
    record.failure = error.what();
    if (is_last) records_.push_back(record);
    if (is_last) throw;
  }
  record.stall_seconds = seconds_since(begin);
  end_save(record);
}

RunSaves::Progress RunSaves::progress() {
  if (!under_way_) return {0, 0};
  if (writer_->is_busy()) {
    if (!writer_->is_done()) return {1, 0};
    failure_ = writer_->finish();
  }
  return {0, failure_ ? 1 : 0};
}

void RunSaves::take_progress(const Progress& agreed) {
  if (!under_way_ || agreed[0] != 0) return;
  SaveRecord record = *std::exchange(under_way_, std::nullopt);
  record.write_seconds = *write_seconds_;
  if (agreed[1] != 0) {
    record.failure = failure_.value_or("another rank lost touch with the ranks that write");
    writer_->renew_group();
  }
  failure_.reset();
  end_save(record);
}

void RunSaves::wait_for_writer() {
  if (!under_way_) return;
  const auto begin = Clock::now();
  if (writer_->is_busy()) failure_ = writer_->finish();
  const at::Tensor failed = at::full({1}, progress()[1], at::kLong);
  world_.all_reduce(failed, ReduceOp::kMax).wait();
  say_(concat("waited ", formatted("%.2g s", seconds_since(begin)), " for step ", under_way_->step,
              " to be written"));
  take_progress({0, failed.item<int64_t>()});
}

void RunSaves::end_save(const SaveRecord& record) {
  records_.push_back(record);
  if (record.failure.empty()) {
    num_failures_ = 0;
    say_(concat("saved ", checkpoint_folder(folder_, record.step).string(), "  ",
                describe(record, world_.size())));
    return;
  }
  ++num_failures_;
  MT_CHECK_CONFIG(num_failures_ < spec_.max_failures, "step ", record.step,
                  " was not saved: ", record.failure, "; with that, ", num_failures_,
                  num_failures_ == 1 ? " save has" : " saves in a row have",
                  " failed, and save-failures (", spec_.max_failures, ") ends the run");
  if (world_.rank() != 0) return;
  log_warning(concat("step ", record.step, " was not saved: ", record.failure,
                     "; training goes on (", num_failures_, " of save-failures ",
                     spec_.max_failures, ")"));
}

std::vector<SaveRecord> RunSaves::take_records() {
  return std::exchange(records_, {});
}

}  // namespace moetron
