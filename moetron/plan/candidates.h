// The layouts that a run may have, each with a bound of its time and with its memory.
#pragma once

#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "moetron/plan/hardware.h"
#include "moetron/plan/held_counts.h"
#include "moetron/run/layout.h"

namespace moetron {

struct Candidate {
  Layout layout;
  double least_time = 0;  // seconds that its step takes at least
  double memory = 0;      // bytes of its fullest rank
  double host = 0;        // likewise, of the host
};

// Of one mesh: those that may be the fastest, and what is said of others.
struct MeshCandidates {
  // Of each micro-batch, dispatcher, schedule and division of layers the recompute and offload that
  // fit and cost least.
  std::vector<Candidate> fitting;
  std::optional<Candidate> fastest_miss;  // nearly fits
  std::optional<Candidate> closest;       // holds least
  int64_t num_candidates = 0;
  int64_t num_fitting = 0;
};

// For one thread: what meshes share is made once.
class CandidateMaker {
 public:
  // The references must outlive this. `model`: the run in any layout.
  CandidateMaker(const RunSpec& model, const LayoutSpace& space, const Hardware& hardware)
      : model_(model), space_(space), hardware_(hardware) {}

  // Of tp, tpe, ep and pp of `mesh`. None where these ranks do not divide the model.
  MeshCandidates candidates(const Layout& mesh);

 private:
  const std::vector<HeldCounts>& counts(const ScheduleRequest& request);

  const RunSpec& model_;
  const LayoutSpace& space_;
  const Hardware& hardware_;
  std::map<std::tuple<ScheduleKind, int, int, int>, std::vector<HeldCounts>> counts_;
};

}  // namespace moetron
