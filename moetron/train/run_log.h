// What rank 0 tells the user of a run: the summary at its start, a line a step, metrics.jsonl,
// TensorBoard and the loss picture at its end. Other ranks hold one that does nothing.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "moetron/metrics/metrics_file.h"
#include "moetron/metrics/progress_bar.h"
#include "moetron/metrics/step_printer.h"
#include "moetron/metrics/tensorboard.h"
#include "moetron/run/run_spec.h"

namespace moetron {

class RunLog {
 public:
  // `num_steps` in all, of which `first_step` is the last already done: later lines of an older try
  // are dropped.
  RunLog(const LogSpec& spec, int64_t num_steps, bool is_first_rank, int64_t first_step);

  // Moves the progress bar; every log_interval-th step, the first, and those with a validation loss
  // or answers are printed.
  void show(const StepRecord& record);
  // Every step goes to the files, or a warning tells why not.
  void write(const StepRecord& record);
  // A line of text above the progress bar.
  void say(const std::string& line);
  // Draws SAVE/loss.png from metrics.jsonl; what keeps it from being drawn is a warning.
  void finish();

 private:
  int64_t log_interval_;
  int64_t first_step_;
  std::filesystem::path metrics_path_;
  std::filesystem::path picture_path_;
  std::unique_ptr<ProgressBar> bar_;  // the rest is null on other ranks
  std::unique_ptr<StepPrinter> printer_;
  std::unique_ptr<MetricsWriter> metrics_;
  bool metrics_fail_ = false;  // since the last step that was written
  std::unique_ptr<TensorBoardWriter> tensorboard_;
};

}  // namespace moetron
