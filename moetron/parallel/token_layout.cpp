#include "moetron/parallel/token_layout.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

int64_t count_of(const std::vector<TokenStretch>& stretches) {
  int64_t count = 0;
  for (const TokenStretch& stretch : stretches) count += stretch.count;
  return count;
}

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

// x [tokens, ...] -> [size * slice, ...], the rows of all ranks, one rank after the other; zeros in
// rows that are no token.
at::Tensor rows_of_all(const at::Tensor& x, const TokenLayout& layout) {
  const int64_t rows = layout.slice_size() * layout.size();
  if (!layout.row_of_token.defined()) return padded(x, rows);
  return at::zeros(with_rows(x, rows), x.options()).index_copy_(0, layout.row_of_token, x);
}

// y = function(x) in the graph, with the opposite function as its backward.
class LayoutChange final : public PureOperation {
 public:
  using Function = at::Tensor (*)(const at::Tensor&, const TokenLayout&);
  LayoutChange(Function backward, const TokenLayout& layout)
      : backward_(backward), layout_(layout) {}
  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    return {backward_(d_y, layout_)};
  }

 private:
  Function backward_;
  TokenLayout layout_;
};

at::Tensor change_layout(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run,
                         LayoutChange::Function forward, LayoutChange::Function backward) {
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = forward(x.detach(), layout);
  }
  run.attach(y, std::make_shared<LayoutChange>(backward, layout), {x});
  return y;
}

// [tokens, features / size] -> [tokens, features]
at::Tensor join_features(const at::Tensor& x, const TokenLayout& layout) {
  const int64_t size = layout.size();
  const at::Tensor gathered = at::empty({size, x.size(0), x.size(1)}, x.options());
  layout.group->all_gather(gathered.flatten(0, 1), x.contiguous()).wait();
  return gathered.transpose(0, 1).flatten(1);  // [tokens, size * features]
}

// [tokens, features], partial sums -> [tokens, features / size]
at::Tensor split_features(const at::Tensor& x, const TokenLayout& layout) {
  const at::Tensor by_rank =
      x.unflatten(1, {layout.size(), -1}).transpose(0, 1).contiguous();  // [size, tokens, features]
  at::Tensor mine = at::empty(by_rank.sizes().slice(1), x.options());
  layout.group->reduce_scatter(mine, by_rank.flatten(0, 1)).wait();
  return mine;
}

}  // namespace

TokenLayout::TokenLayout(Communicator* tensor_group, int64_t tokens)
    : group(tensor_group), num_tokens(tokens), rows_of_rank((tokens + size() - 1) / size()) {
  const int64_t begin = std::min(rank() * slice_size(), num_tokens);
  const int64_t count = std::min(slice_size(), num_tokens - begin);
  if (count > 0) stretches.push_back({begin, count});
}

TokenLayout::TokenLayout(Communicator* tensor_group,
                         std::vector<std::vector<TokenStretch>> of_ranks, c10::Device device)
    : group(tensor_group) {
  MT_CHECK(static_cast<int64_t>(of_ranks.size()) == size(), "stretches of ", of_ranks.size(),
           " ranks in a group of ", size());
  for (const auto& of_rank : of_ranks) {
    num_tokens += count_of(of_rank);
    rows_of_rank = std::max(rows_of_rank, count_of(of_rank));
  }
  std::vector<int64_t> rows(static_cast<size_t>(num_tokens), -1);
  for (size_t of = 0; of < of_ranks.size(); ++of) {
    int64_t row = static_cast<int64_t>(of) * rows_of_rank;
    for (const auto& [begin, count] : of_ranks[of]) {
      MT_CHECK(begin >= 0 && count >= 0 && begin + count <= num_tokens, "tokens from ", begin, ", ",
               count, " of them, in a micro-batch of ", num_tokens);
      for (int64_t token = begin; token < begin + count; ++token) {
        int64_t& place = rows[static_cast<size_t>(token)];
        MT_CHECK(place < 0, "token ", token, " is on two ranks");
        place = row++;
      }
    }
  }
  stretches = std::move(of_ranks[static_cast<size_t>(rank())]);
  bool is_in_order = true;
  for (int64_t token = 0; token < num_tokens; ++token) {
    is_in_order = is_in_order && rows[static_cast<size_t>(token)] == token;
  }
  if (!is_in_order) row_of_token = at::tensor(rows, at::kLong).to(device);
}

int64_t TokenLayout::num_local() const {
  return count_of(stretches);
}

at::Tensor TokenLayout::token_of_row(c10::Device device) const {
  std::vector<at::Tensor> parts = {at::empty({0}, at::TensorOptions(device).dtype(at::kLong))};
  for (const auto& [begin, count] : stretches) {
    parts.push_back(at::arange(begin, begin + count, parts.front().options()));
  }
  return parts.size() == 2 ? parts.back() : at::cat(parts);
}

at::Tensor gather_tokens(const at::Tensor& x, const TokenLayout& layout) {
  if (layout.size() == 1) return x;
  const at::ScalarType type = x.scalar_type();
  if (at::isFloat8Type(type)) return gather_tokens(x.view(at::kByte), layout).view(type);
  at::Tensor all = at::empty(with_rows(x, layout.size() * x.size(0)), x.options());
  layout.group->all_gather(all, x.contiguous()).wait();
  if (layout.row_of_token.defined()) return all.index_select(0, layout.row_of_token);
  return all.narrow(0, 0, layout.num_tokens);
}

at::Tensor reduce_scatter_tokens(const at::Tensor& x, const TokenLayout& layout) {
  if (layout.size() == 1) return x;
  at::Tensor mine = at::empty(with_rows(x, layout.slice_size()), x.options());
  layout.group->reduce_scatter(mine, rows_of_all(x, layout)).wait();
  return mine;
}

at::Tensor slice_tokens(const at::Tensor& x, const TokenLayout& layout) {
  if (layout.size() == 1) return x;
  std::vector<at::Tensor> parts = {x.narrow(0, 0, 0)};
  for (const auto& [begin, count] : layout.stretches) parts.push_back(x.narrow(0, begin, count));
  return padded(parts.size() == 2 ? parts.back() : at::cat(parts), layout.slice_size());
}

at::Tensor gather_tokens(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run) {
  if (layout.size() == 1) return x;
  return change_layout(x, layout, run, gather_tokens, reduce_scatter_tokens);
}

at::Tensor reduce_scatter_tokens(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run) {
  if (layout.size() == 1) return x;
  return change_layout(x, layout, run, reduce_scatter_tokens, gather_tokens);
}

at::Tensor gather_features(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run) {
  if (layout.size() == 1) return x;
  return change_layout(x, layout, run, join_features, split_features);
}

}  // namespace moetron
