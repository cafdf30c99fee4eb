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

// Where the rows of each local expert are. An expert's begin where those of the one before it end,
// at a multiple of the dispatcher's alignment: what an expert is filled up with are rows of zeros,
// of probability zero, that count as its own.
struct ExpertRows {
  std::vector<int64_t> counts;  // empty where the device alone knows
  at::Tensor ends;              // [experts] int32, on the device
};

// What a dispatcher must remember to combine, and to run backward. Each dispatcher derives its own.
class DispatchPlan {
 public:
  virtual ~DispatchPlan() = default;
};

// Whoever holds `rows` owns them: their memory may be a buffer of the dispatcher's, which it takes
// back with the last reference. The engine's is gone when the experts have read them; the experts'
// own behind their weight gradient, or at once where they are recomputed.
struct Dispatched {
  at::Tensor rows;           // [bound, hidden], sorted by local expert; `bound` may exceed the last
                             // end, and what is behind that is undefined
  at::Tensor probabilities;  // [bound] fp32
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

// One for a rank, whatever layers it holds: buffers, streams and groups are made once, for the most
// tokens that a micro-batch brings. Each transfer has three phases: start_...() sends, finish() of
// what it returned waits, and what came is given back with its last reference. Several may be under
// way at once (those of a block), and wait in the order in which they were started.
class Dispatcher {
 public:
  // `max_tokens`: of a rank's slice of a micro-batch; 0: any number.
  explicit Dispatcher(int64_t max_tokens = 0) : max_tokens_(max_tokens) {}
  virtual ~Dispatcher() = default;

  // hidden [tokens, hidden]; InternalError where there are more than max_tokens.
  Pending<Dispatched> start_dispatch(const at::Tensor& hidden, const Routing& routing);
  // rows [bound, hidden], weighted -> [tokens, hidden], each token's rows summed
  virtual Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                            std::shared_ptr<const DispatchPlan> plan) = 0;
  // d_hidden [tokens, hidden] -> [bound, hidden]
  virtual Pending<at::Tensor> start_combine_backward(const at::Tensor& d_hidden,
                                                     std::shared_ptr<const DispatchPlan> plan) = 0;
  // d_rows [bound, hidden], d_probabilities [bound]
  virtual Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) = 0;

 protected:
  virtual Pending<Dispatched> send_tokens(const at::Tensor& hidden, const Routing& routing) = 0;

 private:
  int64_t max_tokens_;
};

}  // namespace moetron
