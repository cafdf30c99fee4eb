// The last words on the screen of a failed run under torchrun are torchrun's: its own traceback,
// and a report of which rank failed. Its place for the cause is ours to fill.
#pragma once

#include <string>

#include "moetron/base/error.h"

namespace moetron {

// Writes the cause of this rank's failure to the file that torchrun names in
// TORCHELASTIC_ERROR_FILE and shows in its report; does nothing without torchrun. Throws nothing.
void tell_launcher(const std::string& cause);

// A launcher ends all ranks as soon as one has left: rank 0 must have spoken by then.
void let_rank_zero_speak(int rank);

// The end of a rank other than 0 that has found a mistake which rank 0 finds, too, and tells. The
// launcher alone hears of it. Returns the exit code.
int leave_silently(int rank, const Error& error);

}  // namespace moetron
