#include "moetron/metrics/gantt.h"

#include <cstdlib>
#include <set>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/metrics/chrome_trace.h"
#include "moetron/metrics/metrics_test_data.h"

namespace moetron {
namespace {

using Gantt = MetricsFolderTest;

bool gnuplot_is_there() {
  return std::system("command -v gnuplot > /dev/null 2>&1") == 0;
}

// Rank 0: a forward, then two that run together; rank 1 only waits and communicates.
Timeline sample_timeline() {
  return {"units",
          {{0, 0, BarKind::kForward, 0, BarPlace::kWhole, 0, 10, "41"},
           {0, 0, BarKind::kForward, 1, BarPlace::kUpperHalf, 10, 40, "42"},
           {0, 0, BarKind::kBackward, 0, BarPlace::kLowerHalf, 10, 40, "43"},
           {0, 0, BarKind::kBackwardWeight, 1, BarPlace::kWhole, 40, 40.1, "77777"},
           {1, 0, BarKind::kWait, 0, BarPlace::kWhole, 0, 5},
           {1, 1, BarKind::kCommunication, 0, BarPlace::kWhole, 5, 40}}};
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++found;
  return found;
}

std::string svg_of(const Timeline& timeline, const std::filesystem::path& path) {
  draw_gantt(timeline, path, "the title");
  return read_file(path);
}

TEST_F(Gantt, DrawsEveryBarInItsColour) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  const std::string svg = svg_of(sample_timeline(), folder_ / "a.svg");
  // The bar and its place in the legend.
  EXPECT_EQ(count(svg, "<polygon fill = 'rgb( 42, 111, 179)'"), 2);  // F of chunk 0
  EXPECT_EQ(count(svg, "<polygon fill = 'rgb(158, 203, 238)'"), 2);  // F of chunk 1
  EXPECT_EQ(count(svg, "<polygon fill = 'rgb(196,  69,  42)'"), 2);  // B
  EXPECT_EQ(count(svg, "<polygon fill = 'rgb(148, 212, 194)'"), 2);  // W
  EXPECT_EQ(count(svg, "<polygon fill = 'rgb(140, 140, 140)'"), 2);  // communication
  for (const char* text : {"the title", "rank 0", "rank 1", "time (units)", "F: forward",
                           "B: backward", "dark: chunk 0, light: chunk 1", "communication"})
    EXPECT_NE(svg.find(text), std::string::npos) << text;
  EXPECT_EQ(svg.find("input gradients"), std::string::npos) << "no such bar";
}

TEST_F(Gantt, LabelsTheBarsThatHaveRoom) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  const std::string svg = svg_of(sample_timeline(), folder_ / "a.svg");
  for (const char* label : {">41<", ">42<", ">43<"}) EXPECT_EQ(count(svg, label), 1) << label;
  EXPECT_EQ(count(svg, "77777"), 0);
}

TEST_F(Gantt, ScalesSeconds) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  const auto drawn = [&](double seconds) {
    return svg_of({"s", {{0, 0, BarKind::kForward, 0, BarPlace::kWhole, 100, 100 + seconds}}},
                  folder_ / "a.svg");
  };
  EXPECT_NE(drawn(30).find("time (s)"), std::string::npos);
  EXPECT_NE(drawn(0.25).find("time (ms)"), std::string::npos);
  EXPECT_NE(drawn(0.25).find(">250<"), std::string::npos) << "time begins at 0";
  EXPECT_NE(drawn(2e-4).find("time (us)"), std::string::npos);
  EXPECT_NE(drawn(0).find("<svg"), std::string::npos);
}

TEST_F(Gantt, DrawsPng) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  draw_gantt(sample_timeline(), folder_ / "a.png", "it's");
  EXPECT_EQ(read_file(folder_ / "a.png").substr(0, 8), "\x89PNG\r\n\x1a\n");
}

TEST_F(Gantt, RefusesWhatItCannotDraw) {
  EXPECT_THROW(draw_gantt(sample_timeline(), folder_ / "a.pdf", "t"), ConfigError);
  EXPECT_THROW(draw_gantt({"units", {}}, folder_ / "a.svg", "t"), ConfigError);
}

TEST_F(Gantt, TellsKindsAndChunksApart) {
  std::set<int> colours;
  for (const BarKind kind : {BarKind::kForward, BarKind::kBackwardInput, BarKind::kBackwardWeight,
                             BarKind::kBackward, BarKind::kReduce})
    for (const int chunk : {0, 1}) colours.insert(colour_of(kind, chunk));
  EXPECT_EQ(colours.size(), 10u);
}

TEST_F(Gantt, WritesATrace) {
  write_timeline_trace(folder_ / "trace.json", sample_timeline());
  const Json trace = read_json(folder_ / "trace.json");
  const Json& events = trace.at("traceEvents");
  ASSERT_EQ(events.size(), 2u + 3u + 6u);  // ranks, tracks, bars
  EXPECT_EQ(events[4].at("args").at("name"), "communication");
  EXPECT_EQ(events[4].at("tid"), 1);
  const Json& forward = events[5];
  EXPECT_EQ(forward.at("name"), "F0 41");
  EXPECT_EQ(forward.at("dur"), 10e6);
  EXPECT_EQ(forward.at("cname"), "rail_response");
  EXPECT_EQ(forward.at("args").at("description"), "micro-batch 41");
  EXPECT_EQ(events[6].at("name"), "F1 42");
  EXPECT_EQ(events[6].at("ts"), events[7].at("ts"));
  EXPECT_EQ(events[9].at("name"), "wait");
}

}  // namespace
}  // namespace moetron
