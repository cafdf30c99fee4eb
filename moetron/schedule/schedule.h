// A pipeline schedule as data (DESIGN: idea 2): for every rank the steps it takes, in order. Sends
// and receives follow from the placement of stages. Nothing here knows torch or a model.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace moetron {

enum class ScheduleKind { k1F1B, kInterleaved, kZbH1, kZbV, kDualPipeV };

std::string name_of(ScheduleKind kind);  // "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipev"
// Throws ConfigError naming the option `scheduler` and the known names.
ScheduleKind parse_schedule_kind(const std::string& name);

enum class ActionKind {
  kForward,         // F
  kBackwardInput,   // I: gradients of the inputs
  kBackwardWeight,  // W: gradients of the weights, after I
  kBackward,        // B: I, then W
};

// What a rank does with one of its chunks for one micro-batch.
struct Action {
  ActionKind kind = ActionKind::kForward;
  int chunk = 0;
  int micro_batch = 0;

  bool operator==(const Action&) const = default;
};

// One action, or two of different micro-batches that run together: communication of either under
// compute of the other.
struct Step {
  Action action;
  std::optional<Action> beside;

  bool operator==(const Step&) const = default;
};

// "F0(3)", "F0(3)&B1(0)": kind, chunk, micro-batch.
std::string describe(const Action& action);
std::string describe(const Step& step);

// Which stage of the pipeline each chunk of a rank is.
class Placement {
 public:
  enum class Shape {
    kStraight,  // one chunk a rank: rank r holds stage r
    kLoop,      // chunk c of rank r is stage c * ranks + r
    kV,         // two chunks: stages r and 2 * ranks - 1 - r, so that both ends are on rank 0
  };
  Placement(Shape shape, int num_ranks) : shape_(shape), num_ranks_(num_ranks) {}

  Shape shape() const { return shape_; }
  int num_ranks() const { return num_ranks_; }
  int num_chunks() const { return shape_ == Shape::kStraight ? 1 : 2; }
  int num_stages() const { return num_chunks() * num_ranks_; }
  int stage(int rank, int chunk) const;
  int rank(int stage) const;
  int chunk(int stage) const { return stage / num_ranks_; }

 private:
  Shape shape_;
  int num_ranks_;
};

using StepList = std::vector<Step>;

struct Schedule {
  ScheduleKind kind;
  Placement placement;
  int num_micro_batches = 0;
  std::vector<StepList> steps;  // by rank
  // Activations that the kind promises to hold at most on each rank, in chunk-micro-batches, of
  // which a rank has two where it has one chunk; an activation counts from its F through its W.
  std::vector<int> declared_peak;
};

// Throws ConfigError if the kind cannot run so many micro-batches, naming what it can.
Schedule make_schedule(ScheduleKind kind, int num_ranks, int num_micro_batches);

// The forwards alone, in the order of the placement: for evaluation. Any number of micro-batches.
Schedule make_forward_schedule(ScheduleKind kind, int num_ranks, int num_micro_batches);

}  // namespace moetron
