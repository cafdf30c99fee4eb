// A bar with the time left on the last line of a terminal.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

namespace moetron {

// Columns of the terminal behind a file descriptor, or 0 if it is none.
int terminal_width(int fd);

// "2:03:04", "3:04" or "4 s".
std::string readable_duration(double seconds);

// After drawing, the cursor rests at the bar's first column, so a log line from elsewhere
// overwrites the bar instead of trailing it. With width 0 (no terminal) nothing is ever written.
class ProgressBar {
 public:
  // `unit`: what a step is called.
  ProgressBar(std::ostream& out, int width, int64_t num_steps, const char* unit = "step");
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `step` steps of num_steps are done; the last took `seconds`. Redraws.
  void advance(int64_t step, double seconds);
  // Erases the bar until the next advance or show: call it before other output to the terminal.
  void hide();
  void show();

 private:
  std::string text() const;

  std::ostream& out_;
  int width_;
  int64_t num_steps_;
  const char* unit_;
  int64_t step_ = 0;
  double seconds_per_step_ = 0.0;  // smoothed
  bool visible_ = false;
};

}  // namespace moetron
