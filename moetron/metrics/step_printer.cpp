#include "moetron/metrics/step_printer.h"

#include <cmath>
#include <cstdio>

#include "moetron/base/units.h"

namespace moetron {
namespace {

constexpr int64_t kLinesPerHeader = 40;
std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

// Right-aligned; a text that is too long keeps one space before it.
void append_cell(std::string& line, const std::string& text, size_t width) {
  const size_t padding = text.size() < width ? width - text.size() : 1;
  line.append(padding, ' ');
  line += text;
}

std::string loss_text(double loss) {
  return std::abs(loss) < 1000.0 ? formatted("%.5f", loss) : formatted("%.4e", loss);
}

// On one line, the last or the first so many bytes of it, in whole characters of UTF-8.
std::string on_one_line(std::string text, size_t most, bool keeps_end) {
  for (char& c : text) c = c == '\n' || c == '\r' || c == '\t' ? ' ' : c;
  if (text.size() <= most) return text;
  const auto is_inside = [&](size_t i) { return (text[i] & 0xc0) == 0x80; };
  if (keeps_end) {
    size_t begin = text.size() - most;
    while (begin < text.size() && is_inside(begin)) ++begin;
    return "..." + text.substr(begin);
  }
  size_t end = most;
  while (end > 0 && is_inside(end)) --end;
  return text.substr(0, end) + "...";
}

std::string sample_line(const SampleAnswer& sample) {
  constexpr size_t kPrompt = 60, kAnswer = 90;  // bytes
  return "          " + on_one_line(sample.prompt, kPrompt, /*keeps_end=*/true) + " -> " +
         on_one_line(sample.answer, kAnswer, /*keeps_end=*/false);
}

}  // namespace

std::string readable_number(double value) {
  const double size = std::abs(value);
  if (!std::isfinite(value) || size >= 1e9) return formatted("%.3e", value);
  if (size < 1000.0) return formatted("%.4g", value);
  return readable_count(std::llround(value));
}

std::string readable_count(int64_t count) {
  std::string digits = std::to_string(count);
  const size_t first = count < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

StepPrinter::StepPrinter(std::ostream& out, ProgressBar* bar) : out_(out), bar_(bar) {}

std::string StepPrinter::header() const {
  std::string line;
  append_cell(line, "step", 8);
  append_cell(line, "loss", 11);
  if (has_rewards_) {
    append_cell(line, "margin", 10);
    append_cell(line, "accuracy", 10);
  }
  if (has_aux_loss_) append_cell(line, "aux loss", 11);
  append_cell(line, "grad norm", 11);
  append_cell(line, "lr", 11);
  append_cell(line, "tok/s/dev", 11);
  append_cell(line, "TFLOP/s/dev", 13);
  if (has_mfu_) append_cell(line, "MFU", 8);
  if (has_memory_) append_cell(line, "memory", 11);
  if (has_balance_) {
    append_cell(line, "imbalance", 11);
    append_cell(line, "dead", 7);
  }
  append_cell(line, "s/step", 9);
  return line;
}

std::string StepPrinter::line(const StepRecord& record) const {
  std::string line;
  append_cell(line, std::to_string(record.step), 8);
  append_cell(line, loss_text(record.loss), 11);
  if (has_rewards_) {
    append_cell(line, record.rewards ? readable_number(record.rewards->margins) : "-", 10);
    append_cell(line, record.rewards ? formatted("%.3f", record.rewards->accuracies) : "-", 10);
  }
  if (has_aux_loss_) append_cell(line, record.aux_loss ? loss_text(*record.aux_loss) : "-", 11);
  append_cell(line, record.grad_norm ? readable_number(*record.grad_norm) : "-", 11);
  append_cell(line, formatted("%.3e", record.lr), 11);
  append_cell(line, readable_number(record.tokens_per_second), 11);
  append_cell(line, readable_number(record.tflops_per_second), 13);
  if (has_mfu_) append_cell(line, record.mfu ? formatted("%.1f %%", 100.0 * *record.mfu) : "-", 8);
  if (has_memory_)
    append_cell(line, formatted("%.2f GiB", static_cast<double>(record.memory_bytes) / kGibi), 11);
  if (has_balance_) {
    const auto& balance = record.router_balance;
    append_cell(line, balance ? formatted("%.3f", balance->mean_load) : "-", 11);
    append_cell(line, balance && balance->num_dead ? std::to_string(*balance->num_dead) : "-", 7);
  }
  append_cell(line, readable_number(record.seconds), 9);
  if (record.validation_loss) line += "   validation loss " + loss_text(*record.validation_loss);
  if (record.validation_rewards)
    line += formatted(", accuracy %.3f", record.validation_rewards->accuracies);
  return line;
}

void StepPrinter::print(const StepRecord& record) {
  if (num_lines_ == 0) {
    has_rewards_ = record.rewards.has_value();
    has_aux_loss_ = record.aux_loss.has_value();
    has_mfu_ = record.mfu.has_value();
    has_memory_ = record.memory_bytes > 0;
    has_balance_ = record.router_balance && record.router_balance->num_dead;
  }
  if (bar_) bar_->hide();
  if (num_lines_ % kLinesPerHeader == 0) out_ << header() << '\n';
  out_ << line(record) << '\n';
  for (const SampleAnswer& sample : record.samples) out_ << sample_line(sample) << '\n';
  out_ << std::flush;
  ++num_lines_;
  if (bar_) bar_->show();
}

}  // namespace moetron
