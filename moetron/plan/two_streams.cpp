#include "moetron/plan/two_streams.h"

#include <algorithm>
#include <limits>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// A stream and the operation it is at.
struct Stream {
  std::vector<size_t> queue;
  size_t next = 0;
  double left = 0;  // of that operation, in seconds at full rate

  bool is_done() const { return next == queue.size(); }
};

bool is_ready(const Stream& stream, const std::vector<StreamOperation>& operations,
              const std::vector<double>& ends) {
  if (stream.is_done()) return false;
  const auto& after = operations[stream.queue[stream.next]].after;
  return std::all_of(after.begin(), after.end(), [&](size_t i) { return ends[i] >= 0; });
}

}  // namespace

StreamTimes run_streams(const std::vector<StreamOperation>& operations, double compute_rate) {
  Stream streams[2];
  for (size_t i = 0; i < operations.size(); ++i)
    streams[operations[i].communicates].queue.push_back(i);
  for (Stream& stream : streams)
    if (!stream.is_done()) stream.left = operations[stream.queue[0]].seconds;
  StreamTimes times;
  times.ends.assign(operations.size(), -1);
  auto& [compute, communication] = streams;
  while (!compute.is_done() || !communication.is_done()) {
    const bool computes = is_ready(compute, operations, times.ends);
    const bool communicates = is_ready(communication, operations, times.ends);
    MT_CHECK(computes || communicates, "operations wait for each other");
    const double rate = communicates && communication.left > 0 ? compute_rate : 1;
    double step = std::numeric_limits<double>::infinity();
    if (computes) step = std::min(step, compute.left / rate);
    if (communicates) step = std::min(step, communication.left);
    times.duration += step;
    if (communicates) times.communication += step;
    if (communicates && !computes) times.exposed += step;
    const auto advance = [&](Stream& stream, bool ends_here, double done) {
      stream.left = ends_here ? 0 : stream.left - done;
      if (!ends_here) return;
      times.ends[stream.queue[stream.next++]] = times.duration;
      if (!stream.is_done()) stream.left = operations[stream.queue[stream.next]].seconds;
    };
    const bool compute_ends = computes && compute.left / rate <= step;
    const bool communication_ends = communicates && communication.left <= step;
    if (computes) advance(compute, compute_ends, step * rate);
    if (communicates) advance(communication, communication_ends, step);
  }
  return times;
}

}  // namespace moetron
