#include "moetron/metrics/step_printer.h"

#include <sstream>
#include <vector>

#include "moetron/metrics/metrics_test_data.h"

namespace moetron {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(StepPrinter, AlignsColumnsUnderTheHeader) {
  std::ostringstream out;
  StepPrinter printer(out, nullptr);
  StepRecord record = sample_record(7);
  printer.print(record);
  record.step = 12345;
  record.loss = 0.5;
  record.aux_loss.reset();
  record.validation_loss = 3.25;
  printer.print(record);
  const auto lines = lines_of(out.str());
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0],
            "    step       loss   aux loss  grad norm         lr  tok/s/dev  TFLOP/s/dev     MFU"
            "     memory   s/step");
  EXPECT_EQ(lines[1],
            "       7    3.33333    0.10000     0.1429  3.000e-04     12,346        350.2  35.4 %"
            "  70.00 GiB     0.75");
  EXPECT_EQ(lines[2],
            "   12345    0.50000          -     0.1429  3.000e-04     12,346        350.2  35.4 %"
            "  70.00 GiB     0.75   validation loss 3.25000");
}

TEST(StepPrinter, LeavesOutColumnsThatSayNothing) {
  std::ostringstream out;
  StepPrinter printer(out, nullptr);
  StepRecord record = sample_record(1);
  record.aux_loss.reset();
  record.mfu.reset();
  record.memory_bytes = 0;
  printer.print(record);
  for (const char* column : {"aux", "MFU", "memory"})
    EXPECT_EQ(out.str().find(column), std::string::npos) << column;
}

TEST(StepPrinter, ShowsTheBalanceOfAllLayers) {
  std::ostringstream out;
  StepPrinter printer(out, nullptr);
  StepRecord record = sample_record(1);
  record.router_balance = router_balance({layer_load(0, {4, 4}), layer_load(1, {8, 0})});
  printer.print(record);
  record.router_balance.reset();
  printer.print(record);
  const auto lines = lines_of(out.str());
  EXPECT_EQ(lines[0].substr(84), "     memory  imbalance   dead   s/step");
  EXPECT_EQ(lines[1].substr(84), "  70.00 GiB      1.500      1     0.75");
  EXPECT_EQ(lines[2].substr(84), "  70.00 GiB          -      -     0.75");
}

TEST(StepPrinter, ShowsAnswersBelowTheLine) {
  std::ostringstream out;
  StepPrinter printer(out, nullptr);
  StepRecord record = sample_record(1);
  std::string answer = std::string(89, 'a') + "\u00e4 and more";  // cut within the umlaut
  record.samples = {{"Who?\n", "He\nis.", "She."}, {std::string(70, 'q'), answer, ""}};
  printer.print(record);
  const auto lines = lines_of(out.str());
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[2], "          Who?  -> He is.");
  EXPECT_EQ(lines[3],
            "          ..." + std::string(60, 'q') + " -> " + std::string(89, 'a') + "...");
}

TEST(StepPrinter, ShowsTheRewardsOfPairs) {
  std::ostringstream out;
  StepPrinter printer(out, nullptr);
  StepRecord record = sample_record(1);
  record.rewards = Rewards{.accuracies = 0.75, .margins = 0.0625};
  record.validation_loss = 0.5;
  record.validation_rewards = Rewards{.accuracies = 0.5};
  printer.print(record);
  const auto lines = lines_of(out.str());
  EXPECT_EQ(lines[0].substr(0, 50), "    step       loss    margin  accuracy   aux loss");
  EXPECT_EQ(lines[1].substr(0, 50), "       1    3.33333    0.0625     0.750    0.10000");
  EXPECT_TRUE(lines[1].ends_with("validation loss 0.50000, accuracy 0.500"));
}

TEST(StepPrinter, RepeatsTheHeader) {
  std::ostringstream out;
  StepPrinter printer(out, nullptr);
  for (int64_t step = 1; step <= 41; ++step) printer.print(sample_record(step));
  const auto lines = lines_of(out.str());
  ASSERT_EQ(lines.size(), 43u);
  EXPECT_EQ(lines[0], lines[41]);
  EXPECT_NE(lines[42].find("41"), std::string::npos);
}

TEST(StepPrinter, NumbersAreReadable) {
  EXPECT_EQ(readable_number(0.0123456), "0.01235");
  EXPECT_EQ(readable_number(350.24), "350.2");
  EXPECT_EQ(readable_number(1000.0), "1,000");
  EXPECT_EQ(readable_number(-1234567.0), "-1,234,567");
  EXPECT_EQ(readable_number(1e12), "1.000e+12");
  EXPECT_EQ(readable_duration(3.6), "4 s");
  EXPECT_EQ(readable_duration(184), "3:04");
  EXPECT_EQ(readable_duration(7384), "2:03:04");
  EXPECT_EQ(readable_duration(-1), "unknown");
}

// What a terminal shows after these bytes: a model of \r, \n and "erase to the end of the line".
std::vector<std::string> screen_after(const std::string& bytes) {
  std::vector<std::string> screen{""};
  size_t column = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == '\r') {
      column = 0;
    } else if (bytes[i] == '\n') {
      screen.emplace_back();
      column = 0;
    } else if (bytes.compare(i, 3, "\x1b[K") == 0) {
      screen.back().resize(column);
      i += 2;
    } else {
      screen.back().resize(std::max(screen.back().size(), column + 1), ' ');
      screen.back()[column++] = bytes[i];
    }
  }
  return screen;
}

TEST(ProgressBar, StaysBelowTheLines) {
  std::ostringstream out;
  {
    ProgressBar bar(out, 80, 100);
    StepPrinter printer(out, &bar);
    for (int64_t step = 1; step <= 3; ++step) {
      bar.advance(step, 2.0);
      printer.print(sample_record(step));
    }
    const auto screen = screen_after(out.str());
    ASSERT_EQ(screen.size(), 5u);  // header, three lines, bar
    EXPECT_EQ(screen[3].substr(0, 8), "       3");
    EXPECT_EQ(screen[4],
              "[#.......................................] 3 %  step 3 of 100  3:14 left");
    bar.hide();
    EXPECT_EQ(screen_after(out.str()).back(), "");
    bar.advance(4, 2.0);
  }
  EXPECT_EQ(screen_after(out.str()).back(), "");  // gone at the end
}

TEST(ProgressBar, FitsNarrowTerminalsAndNoTerminal) {
  for (const int width : {1, 10, 30, 45}) {
    std::ostringstream out;
    ProgressBar bar(out, width, 1000000);
    bar.advance(999999, 1.0);
    EXPECT_LT(screen_after(out.str()).back().size(), static_cast<size_t>(width)) << width;
  }
  std::ostringstream out;
  {
    ProgressBar bar(out, 0, 10);
    bar.advance(5, 1.0);
    bar.hide();
  }
  EXPECT_EQ(out.str(), "");
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_EQ(terminal_width(ends[1]), 0);
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace moetron
