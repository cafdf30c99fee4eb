#include "moetron/train/run_log.h"

#include <iostream>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/metrics/plot.h"

namespace moetron {

RunLog::RunLog(const LogSpec& spec, int64_t num_steps, bool is_first_rank, int64_t first_step)
    : log_interval_(spec.interval), first_step_(first_step) {
  if (!is_first_rank) return;
  metrics_path_ = spec.metrics;
  picture_path_ = spec.picture;
  bar_ = std::make_unique<ProgressBar>(std::cerr, terminal_width(STDERR_FILENO), num_steps);
  printer_ = std::make_unique<StepPrinter>(std::cout, bar_.get());
  if (!metrics_path_.empty()) metrics_ = std::make_unique<MetricsWriter>(metrics_path_, first_step);
  if (!spec.tensorboard.empty())
    tensorboard_ = std::make_unique<TensorBoardWriter>(spec.tensorboard, first_step);
}

// What cannot be written down is a warning: no trained step is lost for it.
void RunLog::write(const StepRecord& record) {
  if (printer_ == nullptr) return;
  try {
    if (metrics_) metrics_->write(record);
    metrics_fail_ = false;
  } catch (const ConfigError& error) {
    if (!metrics_fail_)
      log_warning(concat(error.what(), "; the run goes on, and tries again at every step"));
    metrics_fail_ = true;
  }
  try {
    if (tensorboard_) tensorboard_->write(record);
  } catch (const ConfigError& error) {
    log_warning(concat(error.what(), "; the run goes on without TensorBoard"));
    tensorboard_.reset();
  }
}

void RunLog::show(const StepRecord& record) {
  if (printer_ == nullptr) return;
  const bool is_first = record.step == first_step_ + 1;
  if (is_first || record.validation_loss || !record.samples.empty() ||
      record.step % log_interval_ == 0) {
    printer_->print(record);
    std::cout.flush();
  }
  bar_->advance(record.step, record.seconds);
}

void RunLog::say(const std::string& line) {
  if (printer_ == nullptr) return;
  bar_->hide();
  std::cout << line << std::endl;
  bar_->show();
}

void RunLog::finish() {
  if (printer_ == nullptr) return;
  bar_->hide();
  if (picture_path_.empty() || metrics_path_.empty()) return;
  try {
    plot_losses(read_metrics(metrics_path_), picture_path_, "Loss");
    std::cout << "loss picture: " << picture_path_.string() << std::endl;
  } catch (const std::exception& error) {
    log_warning(first_line(error));
  }
}

}  // namespace moetron
