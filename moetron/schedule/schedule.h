// A pipeline schedule as data (DESIGN: idea 2): for every rank the steps it takes, in order. Sends
// and receives follow from the placement of stages. Nothing here knows torch or a model.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "moetron/config/choices.h"

namespace moetron {

std::string name_of(ScheduleKind kind);  // as --scheduler has it

enum class ActionKind {
  kForward,         // F
  kBackwardInput,   // I: gradients of the inputs
  kBackwardWeight,  // W: gradients of the weights, after I
  kBackward,        // B: I, then W
  kReduce,          // R: the chunk's gradients are complete, and are summed over its replicas
};

// Which part of a W: what fills the waits of another action may be cut in two.
enum class Part { kWhole, kFirstHalf, kSecondHalf };

// What a rank does with one of its chunks for one micro-batch. An R has no micro-batch: 0.
struct Action {
  ActionKind kind = ActionKind::kForward;
  int chunk = 0;
  int micro_batch = 0;
  Part part = Part::kWhole;  // of a W

  bool operator==(const Action&) const = default;
};

// One action, or two that run together:
//  - an F or B, and a B or F of another micro-batch: the communication of either under the compute
//    of the other, layer by layer;
//  - an F or I, and a W of another micro-batch or chunk, which is done while the first waits for
//    its communication;
//  - the last W or B of a chunk, and its R: each layer is reduced as soon as it is complete.
struct Step {
  Action action;
  std::optional<Action> beside;

  bool operator==(const Step&) const = default;
};

// The actions of a step by what they do; at most one of each.
struct StepActions {
  std::optional<Action> forward, backward, weights, reduce;  // backward: an I or B
};
StepActions sorted_actions(const Step& step);

// "F0(3)", "F0(3)&B1(0)", "R1": kind, chunk, micro-batch; "W0(3)a" and "W0(3)b" are halves.
std::string describe(const Action& action);
std::string describe(const Step& step);

// Which stage of the pipeline each chunk of a rank is.
class Placement {
 public:
  enum class Shape {
    kStraight,  // one chunk a rank: rank r holds stage r
    kLoop,      // two chunks or more: chunk c of rank r is stage c * ranks + r
    kV,         // two chunks: stages r and 2 * ranks - 1 - r, so that both ends are on rank 0
  };
  // `loop_chunks`: of a rank in a loop.
  Placement(Shape shape, int num_ranks, int loop_chunks = 2)
      : shape_(shape),
        num_ranks_(num_ranks),
        num_chunks_(shape == Shape::kStraight ? 1
                    : shape == Shape::kV      ? 2
                                              : loop_chunks) {}

  Shape shape() const { return shape_; }
  int num_ranks() const { return num_ranks_; }
  int num_chunks() const { return num_chunks_; }
  int num_stages() const { return num_chunks() * num_ranks_; }
  int stage(int rank, int chunk) const;
  int rank(int stage) const;
  int chunk(int stage) const { return stage / num_ranks_; }

 private:
  Shape shape_;
  int num_ranks_;
  int num_chunks_;
};

Placement placement_of(ScheduleKind kind, int num_ranks, int loop_chunks = 2);

using StepList = std::vector<Step>;

struct Schedule {
  ScheduleKind kind;
  Placement placement;
  int num_micro_batches = 0;
  std::vector<StepList> steps;  // by rank
  // Activations that the kind promises to hold at most on each rank, in chunk-micro-batches (where
  // a rank has one chunk, in halves of them); an activation counts from its F through its W.
  std::vector<int> declared_peak;
};

struct ScheduleRequest {
  ScheduleKind kind = ScheduleKind::k1F1B;
  int num_ranks = 1;
  int num_micro_batches = 1;
  // Of dualpipev+ alone: chunk-micro-batches that a rank may hold, 0: as few as cost little time;
  // and the expert communication of a chunk's F, and of its I, in units of its F: how long there is
  // something to hide.
  int activation_cap = 0;
  double communication = 0.5;
  int loop_chunks = 2;  // of interleaved alone: chunks (virtual stages) of a rank, from 2
};
inline Placement placement_of(const ScheduleRequest& request) {
  return placement_of(request.kind, request.num_ranks, request.loop_chunks);
}

// Throws ConfigError if the kind cannot run so many micro-batches, or stay under the cap, naming
// the least number that works.
Schedule make_schedule(const ScheduleRequest& request);
// Throws as make_schedule() does, and makes no list where the numbers alone decide.
void check_schedule(const ScheduleRequest& request);

// The forwards alone, in the order of the placement: for evaluation. Any number of micro-batches.
Schedule make_forward_schedule(const ScheduleRequest& request);

}  // namespace moetron
