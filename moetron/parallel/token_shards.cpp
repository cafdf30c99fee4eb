#include "moetron/parallel/token_shards.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"

namespace moetron {
namespace {

// [rows, ...] with the first dimension replaced.
std::vector<int64_t> with_rows(const at::Tensor& x, int64_t rows) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[0] = rows;
  return sizes;
}

// x [rows, ...] -> [rows_wanted, ...], zeros behind.
at::Tensor padded(const at::Tensor& x, int64_t rows_wanted) {
  if (x.size(0) == rows_wanted) return x.contiguous();
  at::Tensor y = at::zeros(with_rows(x, rows_wanted), x.options());
  y.narrow(0, 0, x.size(0)).copy_(x);
  return y;
}

// y = function(x) in the graph, with the opposite function as its backward.
class Exchange final : public PureOperation {
 public:
  using Function = at::Tensor (*)(const at::Tensor&, const TokenShards&);
  Exchange(Function backward, const TokenShards& shards) : backward_(backward), shards_(shards) {}
  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    return {backward_(d_y, shards_)};
  }

 private:
  Function backward_;
  TokenShards shards_;
};

at::Tensor exchanged(const at::Tensor& x, const TokenShards& shards, SegmentRun& run,
                     Exchange::Function forward, Exchange::Function backward) {
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = forward(x.detach(), shards);
  }
  run.attach(y, std::make_shared<Exchange>(backward, shards), {x});
  return y;
}

// [tokens, features / size] -> [tokens, features]
at::Tensor join_features(const at::Tensor& x, const TokenShards& shards) {
  const int64_t size = shards.size();
  const at::Tensor gathered = at::empty({size, x.size(0), x.size(1)}, x.options());
  shards.group->all_gather(gathered.flatten(0, 1), x.contiguous()).wait();
  return gathered.transpose(0, 1).flatten(1);  // [tokens, size * features]
}

// [tokens, features], partial sums -> [tokens, features / size]
at::Tensor split_features(const at::Tensor& x, const TokenShards& shards) {
  const at::Tensor by_rank =
      x.unflatten(1, {shards.size(), -1}).transpose(0, 1).contiguous();  // [size, tokens, features]
  at::Tensor mine = at::empty(by_rank.sizes().slice(1), x.options());
  shards.group->reduce_scatter(mine, by_rank.flatten(0, 1)).wait();
  return mine;
}

}  // namespace

int64_t TokenShards::num_local() const {
  return std::clamp<int64_t>(num_tokens - slice_begin(), 0, slice_size());
}

at::Tensor gather_tokens(const at::Tensor& x, const TokenShards& shards) {
  if (shards.size() == 1) return x;
  at::Tensor all = at::empty(with_rows(x, shards.size() * x.size(0)), x.options());
  shards.group->all_gather(all, x.contiguous()).wait();
  return all.narrow(0, 0, shards.num_tokens);
}

at::Tensor reduce_scatter_tokens(const at::Tensor& x, const TokenShards& shards) {
  if (shards.size() == 1) return x;
  const int64_t slice = shards.slice_size();
  at::Tensor mine = at::empty(with_rows(x, slice), x.options());
  shards.group->reduce_scatter(mine, padded(x, slice * shards.size())).wait();
  return mine;
}

at::Tensor slice_tokens(const at::Tensor& x, const TokenShards& shards) {
  if (shards.size() == 1) return x;
  const int64_t begin = std::min(shards.slice_begin(), shards.num_tokens);
  return padded(x.narrow(0, begin, shards.num_local()), shards.slice_size());
}

at::Tensor gather_tokens(const at::Tensor& x, const TokenShards& shards, SegmentRun& run) {
  if (shards.size() == 1) return x;
  return exchanged(x, shards, run, gather_tokens, reduce_scatter_tokens);
}

at::Tensor reduce_scatter_tokens(const at::Tensor& x, const TokenShards& shards, SegmentRun& run) {
  if (shards.size() == 1) return x;
  return exchanged(x, shards, run, reduce_scatter_tokens, gather_tokens);
}

at::Tensor gather_features(const at::Tensor& x, const TokenShards& shards, SegmentRun& run) {
  if (shards.size() == 1) return x;
  return exchanged(x, shards, run, join_features, split_features);
}

}  // namespace moetron
