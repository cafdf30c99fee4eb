#include "moetron/metrics/progress_bar.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sys/ioctl.h>
#include <unistd.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr int kWidthOfUnknownTerminal = 80;
// A step's weight in the smoothed time: the estimate follows changes within about 20 steps.
constexpr double kNewStepWeight = 0.05;
constexpr const char* kEraseLine = "\r\x1b[K";

}  // namespace

int terminal_width(int fd) {
  if (::isatty(fd) == 0) return 0;
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kWidthOfUnknownTerminal;
  return size.ws_col;
}

std::string readable_duration(double seconds) {
  if (!(seconds >= 0.0 && seconds < 1e9)) return "unknown";
  const auto total = static_cast<int64_t>(std::llround(seconds));
  char text[32];
  if (total < 60) {
    std::snprintf(text, sizeof(text), "%d s", static_cast<int>(total));
  } else if (total < 3600) {
    std::snprintf(text, sizeof(text), "%d:%02d", static_cast<int>(total / 60),
                  static_cast<int>(total % 60));
  } else {
    std::snprintf(text, sizeof(text), "%lld:%02d:%02d", static_cast<long long>(total / 3600),
                  static_cast<int>(total / 60 % 60), static_cast<int>(total % 60));
  }
  return text;
}

ProgressBar::ProgressBar(std::ostream& out, int width, int64_t num_steps, const char* unit)
    : out_(out), width_(width), num_steps_(std::max<int64_t>(num_steps, 1)), unit_(unit) {}

ProgressBar::~ProgressBar() {
  hide();
}

std::string ProgressBar::text() const {
  const double done = static_cast<double>(step_) / static_cast<double>(num_steps_);
  const double left = static_cast<double>(num_steps_ - step_) * seconds_per_step_;
  const std::string tail = concat(" ", static_cast<int>(100.0 * done), " %  ", unit_, " ", step_,
                                  " of ", num_steps_, "  ", readable_duration(left), " left");
  // The last column stays free: writing there would wrap on some terminals.
  const int bar_width = std::min(40, width_ - 1 - static_cast<int>(tail.size()) - 2);
  if (bar_width < 4) return tail.substr(1, static_cast<size_t>(std::max(0, width_ - 1)));
  const int filled = static_cast<int>(done * bar_width);
  return "[" + std::string(static_cast<size_t>(filled), '#') +
         std::string(static_cast<size_t>(bar_width - filled), '.') + "]" + tail;
}

void ProgressBar::advance(int64_t step, double seconds) {
  step_ = std::clamp<int64_t>(step, 0, num_steps_);
  seconds_per_step_ = seconds_per_step_ == 0.0
                          ? seconds
                          : (1.0 - kNewStepWeight) * seconds_per_step_ + kNewStepWeight * seconds;
  show();
}

void ProgressBar::hide() {
  if (!visible_) return;
  out_ << kEraseLine << std::flush;
  visible_ = false;
}

void ProgressBar::show() {
  if (width_ == 0 || seconds_per_step_ == 0.0) return;
  out_ << kEraseLine << text() << '\r' << std::flush;
  visible_ = true;
}

}  // namespace moetron
