#include "moetron/pipeline/pipeline_trace.h"

#include <chrono>

namespace moetron {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

SpanScope::SpanScope(const TraceTarget& target, const char* name, Pass pass, bool waits)
    : trace_(target.trace) {
  if (trace_ != nullptr) span_ = {name, pass, waits, target.label, steady_seconds(), 0};
}

SpanScope::~SpanScope() {
  if (trace_ == nullptr) return;
  span_.end = steady_seconds();
  trace_->segments.push_back(span_);
}

}  // namespace moetron
