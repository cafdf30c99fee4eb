// Who tells of a failed run. Without a launcher a rank prints it. Under torchrun, too, but the last
// words on the screen are torchrun's: its own traceback, and a report of which rank failed, with a
// place for the cause that is ours to fill. Under `moetron launch` no rank prints: each tells what
// it knows in a file, of which the launcher makes the one report.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "moetron/base/error.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/config/options.h"

namespace moetron {

struct FailureReport {
  int rank = -1;      // that failed, as far as the teller knows
  std::string phase;  // empty: a mistake that stands for itself
  std::string cause;
};

// Tells the launcher, where there is one. True where it will tell the user; this process then need
// not. Throws nothing.
bool tell_launcher(const FailureReport& report);

// What a rank told in its file; nothing where it told nothing that can be read.
std::optional<FailureReport> read_report(const std::filesystem::path& file);

// Whether the same command continues, and from what; empty of one that saves nothing.
std::string where_to_continue(const Options& options);

// What the user can do about a failure of ranks.
std::string advice(const Options& options, int exit_code);

// The block that tells of a failed run; `rank` is which one failed of how many.
std::string failure_block(const std::string& rank, const std::string& phase,
                          const std::string& cause, const std::string& next);

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
