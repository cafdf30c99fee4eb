// Whether the machines of a run find each other.
#pragma once

#include <chrono>
#include <string>

#include "moetron/doctor/check.h"

namespace moetron {

// Of this machine: its own name, as others are told it.
Check check_host_name(const std::string& name, std::chrono::milliseconds limit);
// Where the ranks meet. That nobody listens there yet is no fault: the run is not started.
Check check_meeting_place(const std::string& address, int port, std::chrono::milliseconds limit);

}  // namespace moetron
