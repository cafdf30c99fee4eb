// How the ranks of a run meet in the store, before any connection between them: whoever finds that
// they do not fit together tells all, so that none of them waits for one that will not come.
#pragma once

#include <string>

#include "moetron/base/error.h"
#include "moetron/comm/world_options.h"

namespace moetron {

// The ranks will not run together. Every rank that has come throws the same.
class JoinRefused : public Error {
 public:
  JoinRefused(int exit_code, const std::string& message, bool rank_zero_knows);

  // Rank 0 has come, too, and tells; else whoever knows must.
  bool rank_zero_knows() const { return rank_zero_knows_; }

 private:
  bool rank_zero_knows_;
};

// The key under which the store keeps what a rank has to say.
std::string rank_key(const char* what, int rank);

// Waits until all ranks have come to the store and rank 0 has found no difference between their
// greetings. Throws JoinRefused, with exit code 2, for ranks that never came, came twice, count
// another world size or greet differently, and with another's code where it refused to come.
void join_ranks(const WorldOptions& options);

// Tells all that this rank cannot run at all. The rank that serves the store stays some seconds for
// the others to hear it. Does not throw: a store that does not answer has no ranks that wait.
void refuse_to_join(const WorldOptions& options, const Error& cause);

}  // namespace moetron
