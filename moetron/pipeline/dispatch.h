// The contract between the router, the experts and whoever moves tokens between them (DESIGN: idea
// 1). Dispatch carries {hidden, probabilities} to the ranks that hold the experts; the experts
// return rows that are already weighted; combine only sums. Backward of dispatch returns {d_hidden,
// d_probabilities}.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

// A choice that goes nowhere: the token is padding, or its expert was full.
constexpr int64_t kNotRouted = -1;

// Which experts each token goes to, and with what weight. Stored, never recomputed.
struct Routing {
  at::Tensor experts;        // [tokens, top_k] int64, global expert numbers or kNotRouted
  at::Tensor probabilities;  // [tokens, top_k] fp32
  at::Tensor chosen;         // [tokens, top_k] int64, the router's choice, before padding and drop
  bool all_go = false;       // known here: no choice is kNotRouted
};

// How many rows each local expert has.
struct ExpertRows {
  std::vector<int64_t> counts;  // empty where the device alone knows
  at::Tensor ends;              // [experts] int32 on the device; undefined where there are counts
};

// What a dispatcher must remember to combine, and to run backward. Each dispatcher derives its own.
class DispatchPlan {
 public:
  virtual ~DispatchPlan() = default;
};

struct Dispatched {
  at::Tensor rows;           // [rows, hidden], sorted by local expert
  at::Tensor probabilities;  // [rows] fp32
  ExpertRows rows_per_expert;
  std::shared_ptr<const DispatchPlan> plan;
};

struct DispatchGrads {
  at::Tensor d_hidden;         // [tokens, hidden]
  at::Tensor d_probabilities;  // [tokens, top_k] fp32, zero where not routed
};

// An instruction that has been started: its communication is under way while the caller computes
// something else. finish() waits for it, does the local rest, and gives the result, once.
template <class Result>
class Pending {
 public:
  explicit Pending(std::function<Result()> finish) : finish_(std::move(finish)) {}
  Result finish() { return std::exchange(finish_, nullptr)(); }

 private:
  std::function<Result()> finish_;
};

class Dispatcher {
 public:
  virtual ~Dispatcher() = default;

  // hidden [tokens, hidden]
  virtual Pending<Dispatched> start_dispatch(const at::Tensor& hidden, const Routing& routing) = 0;
  // rows [rows, hidden], weighted -> [tokens, hidden], each token's rows summed
  virtual Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                            std::shared_ptr<const DispatchPlan> plan) = 0;
  // d_hidden [tokens, hidden] -> [rows, hidden]
  virtual Pending<at::Tensor> start_combine_backward(const at::Tensor& d_hidden,
                                                     std::shared_ptr<const DispatchPlan> plan) = 0;
  // d_rows [rows, hidden], d_probabilities [rows]
  virtual Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) = 0;
};

}  // namespace moetron
