#include "moetron/pipeline/dispatch.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {

Pending<Dispatched> Dispatcher::start_dispatch(const at::Tensor& hidden, const Routing& routing) {
  MT_CHECK(max_tokens_ == 0 || hidden.size(0) <= max_tokens_, "a dispatcher made for ", max_tokens_,
           " tokens is given ", hidden.size(0));
  return send_tokens(hidden, routing);
}

}  // namespace moetron
