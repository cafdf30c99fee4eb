// Who does what when: of a simulated schedule as of a real run, so that both are shown alike.
#pragma once

#include <string>
#include <vector>

namespace moetron {

enum class BarKind {
  kForward,
  kBackwardInput,
  kBackwardWeight,
  kBackward,
  kReduce,
  kCommunication,
  kWait,
};

// Where on its track: two that run together lie on top of each other.
enum class BarPlace { kWhole, kUpperHalf, kLowerHalf };

struct Bar {
  int rank = 0;
  int track = 0;  // of the rank: 0 computes, 1 communicates
  BarKind kind = BarKind::kForward;
  int chunk = 0;
  BarPlace place = BarPlace::kWhole;
  double begin = 0;
  double end = 0;
  std::string label = {};  // letters and digits: a micro-batch; drawn where it fits
};

struct Timeline {
  std::string unit;  // of time: "s", which pictures and traces may scale, or another
  std::vector<Bar> bars;
  // Of a picture's rows, by the bars' ranks; empty: "rank 0", "rank 1", ...
  std::vector<std::string> row_names = {};
};

// "F", "I", "W", "B", "R", "communication", "wait"
std::string short_name(BarKind kind);
// Whether chunks are told apart: not for waiting.
bool has_chunks(BarKind kind);

// 0xrrggbb, dark for chunks 0, 2, ... and light for those between. The hues are chosen to stay
// apart for the colour-blind.
int colour_of(BarKind kind, int chunk);

}  // namespace moetron
