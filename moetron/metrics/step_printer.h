// One aligned line a step, under a header that comes back now and then.
#pragma once

#include <ostream>
#include <string>

#include "moetron/metrics/progress_bar.h"
#include "moetron/metrics/step_record.h"

namespace moetron {

// The first record decides which of the optional columns there are: margin and accuracy of rewards,
// aux loss, MFU, memory, and the balance of the experts (imbalance, the mean of the layers', and
// the number of dead experts).
class StepPrinter {
 public:
  // `bar` is hidden while a line is printed; it may be null.
  StepPrinter(std::ostream& out, ProgressBar* bar);

  void print(const StepRecord& record);

 private:
  std::string header() const;
  std::string line(const StepRecord& record) const;

  std::ostream& out_;
  ProgressBar* bar_;
  int64_t num_lines_ = 0;
  bool has_rewards_ = false;
  bool has_aux_loss_ = false;
  bool has_mfu_ = false;
  bool has_memory_ = false;
  bool has_balance_ = false;
};

// 4 significant digits, from 1,000 on all of the integer: "0.01234", "350.2", "12,345",
// "1.234e+10".
std::string readable_number(double value);

// "31,412,968,448"
std::string readable_count(int64_t count);

}  // namespace moetron
