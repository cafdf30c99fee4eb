#include "moetron/metrics/bar_chart.h"

#include <cmath>
#include <cstdlib>
#include <gmock/gmock.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/metrics/metrics_test_data.h"

namespace moetron {
namespace {

using testing::HasSubstr;

using BarChart = MetricsFolderTest;

History history_of(const std::vector<double>& values) {
  History history;
  for (const double value : values) history.push_back({int64_t(history.size()) + 1, value});
  return history;
}

TEST_F(BarChart, TheMedianLeavesOutTheFirstSteps) {
  EXPECT_EQ(settled_median(history_of({1, 1, 1, 50, 60, 70, 1000}), "run"), 65);
  EXPECT_EQ(settled_median(history_of({1, 2, 30, 40, 50}), "run"), 40);  // half of fewer than six
  EXPECT_EQ(settled_median(history_of({7}), "run"), 7);
  const double nan = std::nan("");
  EXPECT_EQ(settled_median(history_of({1, 1, 1, nan, 5, nan}), "run"), 5);
  EXPECT_THROW(settled_median(history_of({1, nan}), "run"), InputError);
}

TEST_F(BarChart, ReadsTheMetricsColumnOfATable) {
  const std::string text =
      "label,group,tflops,value\r\n1f1b,\"a, b\",1.5,10\r\n\ndualpipev,\"a, b\",2,20\n";
  EXPECT_TRUE(is_bar_table(text));
  EXPECT_FALSE(is_bar_table("step,value\n1,2\n"));
  const std::vector<ValueBar> bars = read_value_bars(text, "t.csv", "tflops");
  ASSERT_EQ(bars.size(), 2u);
  EXPECT_EQ(bars[0].group, "a, b");
  EXPECT_EQ(bars[1].label, "dualpipev");
  EXPECT_EQ(bars[1].value, 2);
  EXPECT_EQ(read_value_bars(text, "t.csv", "mfu")[1].value, 20);
}

TEST_F(BarChart, SaysWhatIsWrongWithATable) {
  const auto expect = [](const std::string& text, const std::string& sentence) {
    try {
      read_value_bars(text, "t.csv", "mfu");
      ADD_FAILURE() << text;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), HasSubstr(sentence));
    }
  };
  expect("label,group,other\na,b,1\n", "t.csv:1: no column is called mfu or value");
  expect("label,group,mfu\n", "t.csv has a header and no row");
  expect("label,group,mfu\na,b\n", "t.csv:2: 2 fields, where the first line has 3");
  for (const char* value : {"", "x", "nan", "inf", "-1", "1e999"})
    expect(concat("label,group,mfu\na,b,", value, "\n"),
           concat("t.csv:2: \"", value, "\" is no number that a bar can show"));
}

TEST_F(BarChart, DrawsValuesAndWhatIsGained) {
  if (std::system("command -v gnuplot > /dev/null 2>&1") != 0) GTEST_SKIP() << "no gnuplot here";
  draw_bars({{"1f1b", "it's <a>", 200}, {"dualpipev", "it's <a>", 290}, {"1f1b", "b", 0}},
            folder_ / "bars.svg", "title", "axis");
  const std::string svg = read_file(folder_ / "bars.svg");
  for (const char* text : {">it's &lt;a", ">290<", ">+45 %<", ">dualpipev<"})
    EXPECT_THAT(svg, HasSubstr(text));
  EXPECT_THROW(draw_bars({}, folder_ / "none.svg", "title", "axis"), ConfigError);
  EXPECT_THROW(draw_bars({{"a", "", 1}}, folder_ / "bars.pdf", "title", "axis"), ConfigError);
}

}  // namespace
}  // namespace moetron
