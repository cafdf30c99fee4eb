// What the start of a run says of it.
#pragma once

#include <cstdint>
#include <string>

#include "moetron/run/run_spec.h"

namespace moetron {

class AdamW;
class Model;

// Model, mesh, pipeline, optimizer states, batch, data and steps, a line each. `data`: in words;
// `step`: the last that is done.
std::string summarize_run(const RunSpec& spec, const Model& model, AdamW& optimizer,
                          const std::string& data, int64_t step);

}  // namespace moetron
