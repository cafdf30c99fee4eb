// Times operations on the compute stream and the expert-communication stream of one rank.
#pragma once

#include <cstddef>
#include <vector>

namespace moetron {

struct StreamOperation {
  bool communicates = false;
  double seconds = 0;
  std::vector<size_t> after;  // earlier operations that must have ended
};

struct StreamTimes {
  std::vector<double> ends;  // by operation
  double duration = 0;
  double communication = 0;  // while any communicates
  double exposed = 0;        // of that, while nothing is computed
};

// Each stream takes its operations in the order of the list. While one communicates, compute takes
// 1 / compute_rate as long: communication occupies multiprocessors of the GPU.
StreamTimes run_streams(const std::vector<StreamOperation>& operations, double compute_rate);

}  // namespace moetron
