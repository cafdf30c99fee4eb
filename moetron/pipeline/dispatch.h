// The contract between the router, the experts and whoever moves tokens between them (DESIGN: idea
// 1). Dispatch carries {hidden, probabilities} to the ranks that hold the experts; the experts
// return rows that are already weighted; combine only sums. Backward of dispatch returns {d_hidden,
// d_probabilities}.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include <ATen/core/Tensor.h>

#include "moetron/pipeline/value.h"

namespace moetron {

// What a dispatcher must remember to combine, and to run backward. Each dispatcher derives its own.
class DispatchPlan {
 public:
  virtual ~DispatchPlan() = default;
};

// Whoever holds `rows` owns them, data and scales: their memory may be a buffer of the
// dispatcher's, which it takes back with the last reference. The engine's is gone when the experts
// have read them; the experts' own behind their weight gradient, or at once where they are
// recomputed.
struct Dispatched {
  // data [bound, hidden], sorted by local expert; `bound` may exceed the last end, and what is
  // behind that is undefined. scales [bound, any] where the tokens have some. The layout is
  // ExpertRows.
  Value rows;
  at::Tensor probabilities;  // [bound] fp32
  std::shared_ptr<const DispatchPlan> plan;

  const ExpertRows& rows_per_expert() const { return std::get<ExpertRows>(rows.layout); }
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

// One for a rank, whatever layers it holds: streams and groups are made once. Each transfer has
// three phases: start_...() sends, finish() of what it returned waits, and what came is given back
// with its last reference. Several may be under way at once (those of a block), and wait in the
// order in which they were started.
//
// Those of moe/ take memory from torch, whose allocator caches it: rows live from their dispatch to
// their weight gradient, in as many micro-batches as the schedule holds, and are as many as the
// routing makes them. Buffers for the most tokens that may come would keep more of it alive.
class Dispatcher {
 public:
  // `max_tokens`: of a rank's slice of a micro-batch; 0: any number.
  explicit Dispatcher(int64_t max_tokens = 0) : max_tokens_(max_tokens) {}
  virtual ~Dispatcher() = default;

  // tokens: data [tokens, hidden], in 8 bits (or their bytes) with scales [tokens, any] fp32, which
  // travel with their tokens. InternalError where there are more than max_tokens.
  Pending<Dispatched> start_dispatch(const Value& tokens, const Routing& routing);
  // rows [bound, hidden], weighted -> [tokens, hidden], each token's rows summed
  virtual Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                            std::shared_ptr<const DispatchPlan> plan) = 0;
  // d_hidden: data [tokens, hidden] -> [bound, hidden]; in 8 bits with scales as start_dispatch()
  // has them.
  Pending<Value> start_combine_backward(const Value& d_hidden,
                                        std::shared_ptr<const DispatchPlan> plan);
  // d_rows [bound, hidden], d_probabilities [bound]
  virtual Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) = 0;

 protected:
  // Numbers of 8 bits come as bytes.
  virtual Pending<Dispatched> send_tokens(const Value& tokens, const Routing& routing) = 0;
  virtual Pending<Value> send_grads(const Value& d_hidden,
                                    std::shared_ptr<const DispatchPlan> plan) = 0;

 private:
  int64_t max_tokens_;
};

}  // namespace moetron
