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
  if (!span.description.empty()) event["args"] = {{"description", span.description}};
  return event;
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

}  // namespace moetron
