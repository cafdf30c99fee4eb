// The checkpoints of a run: when one is written beside training and when training waits for it,
// what becomes of one that cannot be written, and which older ones stay.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "moetron/checkpoint/background_writer.h"
#include "moetron/checkpoint/keep_checkpoints.h"
#include "moetron/checkpoint/save_plan.h"
#include "moetron/metrics/save_record.h"
#include "moetron/run/run_spec.h"

namespace moetron {

class Communicator;

class RunSaves {
 public:
  // Plans what every save writes, of which `content` needs the tensors alone, and refuses a place
  // that could not take the first (ConfigError). `writer`: for saves in the background; null:
  // training waits for each. `say` gets lines for people. `owns_folder`: on rank 0, no other run
  // can be at work in the folder. Collective; world and writer outlive the object.
  RunSaves(const StartSpec& start, const SaveSpec& spec, const CheckpointContent& content,
           bool owns_folder, Communicator& world, BackgroundWriter* writer,
           std::function<void(const std::string& line)> say);

  // "1.23 GB each; 47 fit into the 60 GB that are free in DIR; ...": what a start says.
  std::string description() const;

  // Saves what `make_content` returns, or begins to. A save that fails is a warning, unless it is
  // the last that the run makes (`is_last`, for which training waits in any case) or
  // --save-failures of them have failed in a row: then a ConfigError on all ranks. Where the one
  // before is still being written, waits for that first. Collective.
  void save(int64_t step, const std::function<CheckpointContent()>& make_content, bool is_last);

  // What the ranks have to agree on at a step's end: each number becomes the greatest of all ranks.
  using Progress = std::array<int64_t, 2>;  // still writing, has failed
  Progress progress();
  // Takes note of what has ended on all ranks; `agreed` is the same on all. Throws as save().
  void take_progress(const Progress& agreed);

  // Before a step changes what a save in the background may still be copying.
  void hold_changes() const {
    if (writer_ != nullptr) writer_->hold_changes();
  }

  // The saves that have ended since the last call.
  std::vector<SaveRecord> take_records();

 private:
  using Clock = std::chrono::steady_clock;

  bool has_room_for_copy();
  void begin_write(const SaveRecord& record, const CheckpointContent& content,
                   Clock::time_point begin);
  void write_now(SaveRecord record, CheckpointContent content, Clock::time_point begin,
                 bool is_last);
  void wait_for_writer();
  void end_save(const SaveRecord& record);

  const std::filesystem::path folder_;
  const SaveSpec spec_;
  const KeepRule keep_;
  Communicator& world_;
  BackgroundWriter* writer_;
  std::function<void(const std::string& line)> say_;
  std::shared_ptr<const SavePlan> plan_;
  std::optional<bool> has_room_;  // of the host, for a copy; once it was looked at
  // Of the save in the background: until all ranks know how it has ended.
  std::optional<SaveRecord> under_way_;
  std::optional<std::string> failure_;  // on this rank, whose part has ended
  std::shared_ptr<double> write_seconds_ = std::make_shared<double>(0);  // the writer tells
  int64_t num_failures_ = 0;                                             // in a row
  std::vector<SaveRecord> records_;
};

}  // namespace moetron
