#include "moetron/train/step_profile.h"

#include "moetron/base/error.h"
#include "moetron/base/json.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/metrics/chrome_trace.h"
#include "moetron/parallel/mesh.h"
#include "moetron/schedule/drawing.h"

namespace moetron {
namespace {

enum Track { kComputes, kWaits, kSteps, kSimulated };

Json to_json(const Action& action) {
  return {static_cast<int>(action.kind), action.chunk, action.micro_batch,
          static_cast<int>(action.part)};
}

Action to_action(const Json& json) {
  return {static_cast<ActionKind>(json[0].get<int>()), json[1].get<int>(), json[2].get<int>(),
          static_cast<Part>(json[3].get<int>())};
}

// A rank's record as text, times from `origin` on; the numbers are whole.
std::string encode(const PipelineTrace& trace, double origin) {
  Json steps = Json::array(), segments = Json::array();
  for (const SimulatedStep& step : trace.steps) {
    const Json beside = step.step.beside ? to_json(*step.step.beside) : Json();
    steps.push_back({to_json(step.step.action), beside, step.begin - origin, step.end - origin});
  }
  for (const SegmentSpan& span : trace.segments) {
    segments.push_back({span.name, static_cast<int>(span.pass), span.waits, span.label.chunk,
                        span.label.micro_batch, span.label.layer, span.begin - origin,
                        span.end - origin});
  }
  return Json{{"steps", std::move(steps)}, {"segments", std::move(segments)}}.dump();
}

SimulatedStep to_step(const Json& json) {
  SimulatedStep step{{to_action(json[0]), {}}, json[2].get<double>(), json[3].get<double>()};
  if (!json[1].is_null()) step.step.beside = to_action(json[1]);
  return step;
}

Span to_span(const Json& json, int64_t rank) {
  static constexpr const char* kPasses[] = {" F", " F again", " I", " W"};
  Span span;
  span.name = json[0].get<std::string>() + kPasses[json[1].get<size_t>()];
  span.process = rank;
  span.track = json[2].get<bool>() ? kWaits : kComputes;
  span.description = concat("chunk ", json[3].get<int>(), ", micro-batch ", json[4].get<int>(),
                            ", layer ", json[5].get<int>(), " of the chunk");
  span.start = json[6].get<double>();
  span.duration = json[7].get<double>() - span.start;
  return span;
}

// The steps of every rank as spans of a track.
void add_step_spans(const Simulation& steps, double begin, Track track, std::vector<Span>& spans) {
  for (size_t rank = 0; rank < steps.steps.size(); ++rank) {
    for (const SimulatedStep& step : steps.steps[rank])
      spans.push_back({describe(step.step), static_cast<int64_t>(rank), track, begin + step.begin,
                       step.end - step.begin, ""});
  }
}

// Whether the work was done: a picture or a trace that cannot be written must not end the run.
template <class Work>
bool warn_of_failure(const Work& work) {
  try {
    work();
    return true;
  } catch (const ConfigError& error) {
    log_warning(error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    log_warning(describe(error));
  }
  return false;
}

}  // namespace

StepProfile::StepProfile(const LogSpec& spec, Mesh& mesh, c10::Device device)
    : mesh_(mesh), device_(device) {
  const bool is_first = mesh.stage().rank() == 0;
  if (spec.profile_folder.empty() || !is_first) return;
  folder_ = spec.profile_folder;
  ending_ = spec.profile_ending;
  first_ = spec.profile_begin;
  last_ = spec.profile_end;
}

bool StepProfile::records(int64_t step) const {
  return first_ <= step && step < last_;
}

PipelineTrace* StepProfile::begin(int64_t step) {
  if (!records(step)) return nullptr;
  trace_ = {};
  mesh_.pipeline().barrier();  // clocks of different machines differ
  if (device_.is_cuda()) gpu_.emplace(device_, KernelProfile::Contents::kEverything);
  origin_ = steady_seconds();
  return &trace_;
}

std::string StepProfile::end(int64_t step, const Schedule& schedule) {
  if (!records(step)) return {};
  const std::string name = concat("step_", step);
  if (gpu_) {
    const auto path = folder_ / concat(name, "_gpu_", mesh_.pipeline().rank(), ".json");
    warn_of_failure([&] {
      std::filesystem::create_directories(folder_);
      gpu_->save(path);
    });
    gpu_.reset();
  }
  const std::vector<std::string> texts = gather_texts(mesh_.pipeline(), encode(trace_, origin_));
  if (mesh_.pipeline().rank() != 0) return {};
  std::vector<std::vector<SimulatedStep>> steps;
  std::vector<Span> spans;
  std::vector<TrackName> tracks;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    const auto number = static_cast<int64_t>(rank);
    const Json record = Json::parse(texts[rank]);
    std::vector<SimulatedStep>& of_rank = steps.emplace_back();
    for (const Json& entry : record.at("steps")) of_rank.push_back(to_step(entry));
    for (const Json& entry : record.at("segments")) spans.push_back(to_span(entry, number));
    tracks.push_back({number, kComputes, "computes"});
    tracks.push_back({number, kWaits, "waits for communication"});
    tracks.push_back({number, kSteps, "steps"});
    tracks.push_back({number, kSimulated, "steps, simulated"});
  }
  const MeasuredStep measured = simulate_measured(schedule, std::move(steps));
  add_step_spans(measured.real, measured.begin, kSteps, spans);
  add_step_spans(measured.simulated, measured.begin, kSimulated, spans);
  const std::filesystem::path picture = folder_ / (name + ending_);
  const bool is_drawn = warn_of_failure([&] {
    std::filesystem::create_directories(folder_);
    write_chrome_trace(folder_ / (name + ".json"), spans, tracks);
    draw_measured_step(picture, schedule, measured);
  });
  const std::string files = is_drawn ? concat(picture.string(), " and .json; ") : "";
  return concat("profile   ", files, describe(measured));
}

}  // namespace moetron
