// Pictures and traces of simulated schedules.
#pragma once

#include <filesystem>
#include <string>

#include "moetron/metrics/timeline.h"
#include "moetron/schedule/measured_step.h"
#include "moetron/schedule/simulate.h"

namespace moetron {

// The two of a step that run together become two halves. `unit` is that of the costs: "s", or
// another, like that of UnitCosts.
Timeline timeline_of(const Schedule& schedule, const Simulation& simulation,
                     const std::string& unit);

// A Gantt chart (.png or .svg). Throws ConfigError as draw_gantt() does.
void draw_simulation(const std::filesystem::path& path, const Schedule& schedule,
                     const Simulation& simulation, const std::string& unit);

// A real step, and under each of its ranks what was simulated for it, on one axis of seconds.
void draw_measured_step(const std::filesystem::path& path, const Schedule& schedule,
                        const MeasuredStep& step);

// For Perfetto or chrome://tracing, a unit as a second.
void write_simulation_trace(const std::filesystem::path& path, const Schedule& schedule,
                            const Simulation& simulation, const std::string& unit);

}  // namespace moetron
