// What the start of a run says of a model beside its shape.
#pragma once

#include <string>
#include <vector>

#include "moetron/run/run_spec.h"

namespace moetron {

struct Options;

// One line for what the family, or the config.json that was loaded, sets without an option of the
// user's, and one for each choice that others make differently or that trains less than one may
// think.
std::vector<std::string> start_remarks(const Options& options, const RunSpec& spec);

}  // namespace moetron
