#include "moetron/pipeline/pipeline_trace.h"

#include <chrono>

#include <ATen/record_function.h>

#include "moetron/base/error.h"

namespace moetron {

namespace {

std::string range_name(const char* name, Pass pass, bool waits, const SpanLabel& label) {
  const char* const passes[] = {"forward", "forward again", "input gradient", "weight gradient"};
  return concat(waits ? "wait for " : "", name, " ", passes[static_cast<int>(pass)], ", layer ",
                label.layer, " of chunk ", label.chunk, ", micro-batch ", label.micro_batch);
}

}  // namespace

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

SpanScope::SpanScope(const TraceTarget& target, const char* name, Pass pass, bool waits)
    : trace_(target.trace) {
  if (trace_ == nullptr) return;
  range_ = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
  if (range_->isActive()) range_->before(range_name(name, pass, waits, target.label));
  span_ = {name, pass, waits, target.label, steady_seconds(), 0};
}

SpanScope::~SpanScope() {
  if (trace_ == nullptr) return;
  span_.end = steady_seconds();
  range_.reset();
  trace_->segments.push_back(span_);
}

}  // namespace moetron
