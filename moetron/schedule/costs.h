// What the steps of a schedule cost: where the simulator gets its times from, in any unit.
#pragma once

#include "moetron/schedule/message.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

struct StepCost {
  double duration = 0;
  // From the step's beginning: when what each of its actions makes for others is sent.
  double action_sent = 0;
  double beside_sent = 0;
  double communication = 0;  // time that expert communication takes in it, hidden or not
  double exposed = 0;        // of that, where nothing is computed meanwhile
  double reduced = 0;        // of the duration, what summing gradients over their replicas adds
};

class CostModel {
 public:
  virtual ~CostModel() = default;
  virtual StepCost step(int rank, const Step& step) const = 0;
  // From a message's sending to its arrival at another rank.
  virtual double transfer(const Message& message) const = 0;
};

// F = I = W = 1 for one of two chunks, 2 for an only chunk, 2 / n for one of n; R costs nothing.
// The F and the I of a chunk each wait `communication` times their F when they run alone. A block
// of F and B costs the greater of F + I + W and the communication of both; F or I beside a W costs
// itself and the greater of the W (a half of it: a half) and the communication.
class UnitCosts final : public CostModel {
 public:
  UnitCosts(const Placement& placement, double communication);
  StepCost step(int rank, const Step& step) const override;
  double transfer(const Message&) const override { return 0; }

 private:
  double chunk_units_;
  double communication_;
};

}  // namespace moetron
