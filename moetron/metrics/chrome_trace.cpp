#include "moetron/metrics/chrome_trace.h"

#include <set>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"

namespace moetron {
namespace {

// Names of processes and tracks are events of the phase "M", spans ("complete events") of phase "X"
// with times in microseconds.
Json name_event(const char* kind, int64_t process, int64_t track, const std::string& name) {
  return {
      {"ph", "M"}, {"name", kind}, {"pid", process}, {"tid", track}, {"args", {{"name", name}}}};
}

Json span_event(const Span& span) {
  Json event = {{"ph", "X"},         {"name", span.name},      {"pid", span.process},
                {"tid", span.track}, {"ts", span.start * 1e6}, {"dur", span.duration * 1e6}};
  if (!span.colour.empty()) event["cname"] = span.colour;
  if (!span.description.empty()) event["args"] = {{"description", span.description}};
  return event;
}

// The names are those of chrome://tracing (catapult, tracing/base/color_scheme.html).
const char* trace_colour(BarKind kind, int chunk) {
  const bool is_dark = chunk == 0;
  switch (kind) {
    case BarKind::kForward:
      return is_dark ? "rail_response" : "thread_state_runnable";
    case BarKind::kBackwardInput:
      return is_dark ? "rail_idle" : "thread_state_unknown";
    case BarKind::kBackwardWeight:
      return is_dark ? "rail_load" : "thread_state_running";
    case BarKind::kBackward:
      return is_dark ? "rail_animation" : "cq_build_failed";
    case BarKind::kReduce:
      return is_dark ? "detailed_memory_dump" : "thread_state_uninterruptible";
    case BarKind::kCommunication:
      return "generic_work";
    case BarKind::kWait:
      return "thread_state_sleeping";
  }
  throw InternalError("a bar without a kind");
}

Span span_of(const Bar& bar) {
  std::string name = short_name(bar.kind);
  if (has_chunks(bar.kind)) name += concat(bar.chunk);
  if (!bar.label.empty()) name += " " + bar.label;
  return {std::move(name),
          bar.rank,
          bar.track,
          bar.begin,
          bar.end - bar.begin,
          bar.label.empty() ? "" : "micro-batch " + bar.label,
          trace_colour(bar.kind, bar.chunk)};
}

}  // namespace

void write_chrome_trace(const std::filesystem::path& path, const std::vector<Span>& spans,
                        const std::vector<TrackName>& tracks) {
  FileWriter writer(path);
  const char* separator = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  const auto write = [&](const Json& event) {
    writer.write(separator);
    writer.write(event.dump(-1, ' ', true, Json::error_handler_t::replace));
    separator = ",\n";
  };
  std::set<int64_t> processes;
  for (const Span& span : spans) processes.insert(span.process);
  for (const int64_t process : processes)
    write(name_event("process_name", process, 0, concat("rank ", process)));
  for (const TrackName& track : tracks)
    write(name_event("thread_name", track.process, track.track, track.name));
  for (const Span& span : spans) write(span_event(span));
  if (spans.empty() && tracks.empty()) writer.write(separator);
  writer.write("\n]}\n");
  writer.commit();
}

void write_timeline_trace(const std::filesystem::path& path, const Timeline& timeline) {
  std::vector<Span> spans;
  std::set<std::pair<int, int>> used;
  for (const Bar& bar : timeline.bars) {
    spans.push_back(span_of(bar));
    used.insert({bar.rank, bar.track});
  }
  std::vector<TrackName> tracks;
  tracks.reserve(used.size());
  for (const auto& [rank, track] : used)
    tracks.push_back({rank, track, track == 0 ? "compute" : "communication"});
  write_chrome_trace(path, spans, tracks);
}

}  // namespace moetron
