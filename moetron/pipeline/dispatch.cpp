#include "moetron/pipeline/dispatch.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {

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
  if (!at::isFloat8Type(type)) return send_tokens(tokens, routing);
  // Neither ATen's operators nor every communicator know numbers of 8 bits.
  Value bytes = tokens;
  bytes.data = data.view(at::kByte);
  return Pending<Dispatched>([sent = send_tokens(bytes, routing), type]() mutable {
    Dispatched dispatched = sent.finish();
    dispatched.rows.data = dispatched.rows.data.view(type);
    return dispatched;
  });
}

}  // namespace moetron
