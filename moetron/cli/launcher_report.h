// The last words on the screen of a failed run under torchrun are torchrun's: its own traceback,
// and a report of which rank failed. Its place for the cause is ours to fill.
#pragma once

#include <string>

#include "moetron/base/error.h"
#include "moetron/comm/rendezvous.h"

namespace moetron {

// Writes the cause of this rank's failure to the file that torchrun names in
// TORCHELASTIC_ERROR_FILE and shows in its report; does nothing without torchrun. Throws nothing.
void tell_launcher(const std::string& cause);

// A launcher ends all ranks as soon as one has left: rank 0 must have spoken by then.
void let_rank_zero_speak(int rank);

// The end of a rank other than 0 that has found a mistake which rank 0 finds, too, and tells. The
// launcher alone hears of it. Returns the exit code.
int leave_silently(int rank, const Error& error);

// The run's last words.
void say_failure(const std::string& cause);

// The end of a rank that finds before it meets the others that it cannot run. Most mistakes are
// made on all ranks, and rank 0 says them; one that is made on this rank alone is told to those who
// wait for it, of which rank 0 speaks. Returns the exit code.
int leave_before_joining(const RankEnvironment& environment, const Greeting& greeting,
                         const Error& error);

}  // namespace moetron
