// When a rank computed what, and when it waited for communication: the executor's own record, for
// pictures and for the proof that communication is hidden. Times are the host's: on a CPU when
// things happened, on a GPU when they were issued.
#pragma once

#include <memory>
#include <vector>

#include "moetron/schedule/instructions.h"
#include "moetron/schedule/simulate.h"

namespace at {
struct RecordFunction;
}

namespace moetron {

double steady_seconds();  // of the steady clock, which ranks of one machine share

// What a span belongs to.
struct SpanLabel {
  int chunk = 0;
  int micro_batch = 0;
  int layer = 0;  // within the chunk
};

struct SegmentSpan {
  const char* name = "";  // "attention", "experts", "dispatch", ...
  Pass pass = Pass::kForward;
  bool waits = false;  // for the communication of that name; else it computes
  SpanLabel label;
  double begin = 0;  // steady_seconds()
  double end = 0;
};

struct PipelineTrace {
  std::vector<SegmentSpan> segments;
  std::vector<SimulatedStep> steps;  // each begins where its inputs have arrived
};

// Where a step of a layer writes its spans to; nowhere where `trace` is null.
struct TraceTarget {
  PipelineTrace* trace = nullptr;
  SpanLabel label;
};

// Adds the span of its own life, and shows it to libtorch's profiler, which on a GPU finds the
// kernels that were issued within.
class SpanScope {
 public:
  SpanScope(const TraceTarget& target, const char* name, Pass pass, bool waits = false);
  ~SpanScope();
  SpanScope(const SpanScope&) = delete;
  SpanScope& operator=(const SpanScope&) = delete;

 private:
  PipelineTrace* trace_;
  SegmentSpan span_;
  std::unique_ptr<at::RecordFunction> range_;
};

}  // namespace moetron
