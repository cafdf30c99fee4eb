#include "moetron/data/blend_order.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;

}  // namespace

BlendOrder::BlendOrder(std::vector<double> weights)
    : weights_(std::move(weights)), drawn_{std::vector<int64_t>(weights_.size())} {
  MT_CHECK(!weights_.empty(), "a blend of no datasets");
  MT_CHECK_CONFIG(weights_.size() <= size_t{std::numeric_limits<int16_t>::max()}, "a blend of ",
                  weights_.size(), " datasets is above ", std::numeric_limits<int16_t>::max());
}

int32_t BlendOrder::draw(int64_t t, std::vector<int64_t>& drawn) const {
  const double position = std::max(static_cast<double>(t), 1.0);
  size_t chosen = 0;
  double largest_lag = weights_[0] * position - static_cast<double>(drawn[0]);
  for (size_t i = 1; i < weights_.size(); ++i) {
    const double lag = weights_[i] * position - static_cast<double>(drawn[i]);
    if (lag <= largest_lag) continue;
    largest_lag = lag;
    chosen = i;
  }
  ++drawn[chosen];
  return static_cast<int32_t>(chosen);
}

void BlendOrder::find_block(int64_t block) const {
  if (block == block_) return;
  while (static_cast<int64_t>(drawn_.size()) <= block) {
    const int64_t last = static_cast<int64_t>(drawn_.size()) - 1;
    std::vector<int64_t> drawn = drawn_.back();
    for (int64_t t = last * kBlock; t < (last + 1) * kBlock; ++t) draw(t, drawn);
    drawn_.push_back(std::move(drawn));
  }
  std::vector<int64_t> drawn = drawn_[static_cast<size_t>(block)];
  draws_.resize(static_cast<size_t>(kBlock));
  for (int64_t i = 0; i < kBlock; ++i) {
    const int32_t dataset = draw(block * kBlock + i, drawn);
    draws_[static_cast<size_t>(i)] = {dataset, drawn[static_cast<size_t>(dataset)] - 1};
  }
  block_ = block;
}

BlendOrder::Draw BlendOrder::at(int64_t t) const {
  const std::lock_guard lock(mutex_);
  find_block(t / kBlock);
  return draws_[static_cast<size_t>(t % kBlock)];
}

std::vector<int64_t> BlendOrder::drawn(int64_t size) const {
  const std::lock_guard lock(mutex_);
  find_block(size / kBlock);
  std::vector<int64_t> drawn = drawn_[static_cast<size_t>(size / kBlock)];
  for (int64_t i = 0; i < size % kBlock; ++i) {
    const Draw& next = draws_[static_cast<size_t>(i)];
    drawn[static_cast<size_t>(next.dataset)] = next.sample + 1;
  }
  return drawn;
}

}  // namespace moetron
