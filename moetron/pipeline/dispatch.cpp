#include "moetron/pipeline/dispatch.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Neither ATen's operators nor every communicator know numbers of 8 bits.
Value as_bytes(const Value& value) {
  if (!at::isFloat8Type(value.data.scalar_type())) return value;
  Value bytes = value;
  bytes.data = value.data.view(at::kByte);
  return bytes;
}

}  // namespace

Pending<Dispatched> Dispatcher::start_dispatch(const Value& tokens, const Routing& routing) {
  const at::Tensor& data = tokens.data;
  MT_CHECK(max_tokens_ == 0 || data.size(0) <= max_tokens_, "a dispatcher made for ", max_tokens_,
           " tokens is given ", data.size(0));
  MT_CHECK(!tokens.scales.defined() ||
               (tokens.scales.dim() == 2 && tokens.scales.size(0) == data.size(0) &&
                tokens.scales.scalar_type() == at::kFloat),
           "tokens [", data.sizes(), "] with scales [", tokens.scales.sizes(), "] of type ",
           tokens.scales.scalar_type());
  const at::ScalarType type = data.scalar_type();
  return Pending<Dispatched>([sent = send_tokens(as_bytes(tokens), routing), type]() mutable {
    Dispatched dispatched = sent.finish();
    dispatched.rows.data = dispatched.rows.data.view(type);
    return dispatched;
  });
}

Pending<Value> Dispatcher::start_combine_backward(const Value& d_hidden,
                                                  std::shared_ptr<const DispatchPlan> plan) {
  const at::ScalarType type = d_hidden.data.scalar_type();
  return Pending<Value>([sent = send_grads(as_bytes(d_hidden), std::move(plan)), type]() mutable {
    Value d_rows = sent.finish();
    d_rows.data = d_rows.data.view(type);
    return d_rows;
  });
}

}  // namespace moetron
