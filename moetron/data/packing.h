// Conversations into packs of at most so many tokens, and packs to ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moetron {

// Lists of numbered conversations, one behind the other.
class PackList {
 public:
  int64_t size() const { return static_cast<int64_t>(ends_.size()); }
  std::span<const int64_t> operator[](int64_t pack) const;

  void add(std::span<const int64_t> conversations);
  // The first `count` lists, with empty ones behind them where there are not so many.
  PackList first(int64_t count) const;

 private:
  std::vector<int64_t> conversations_;
  std::vector<int64_t> ends_;  // of each pack in conversations_
};

// First-fit decreasing (Johnson, "Near-optimal bin packing algorithms", 1973): the longest first,
// each into the first pack that has room, in O(n log n). `lengths` is of all conversations, by
// number; InternalError for one of the `conversations` that is longer than `capacity`. Packs come
// in the order in which they were begun, and hold theirs in the order in which they came.
PackList pack_first_fit_decreasing(std::span<const int64_t> conversations,
                                   std::span<const int32_t> lengths, int64_t capacity);

// What a pack costs to compute, in units of its own: attention looks at half the square of each
// conversation's length, all else goes with the tokens.
double pack_cost(std::span<const int64_t> conversations, std::span<const int32_t> lengths);

// How a global batch is cut (data/sampler.h): micro-batch k of rank r takes `micro_batch_size`
// places from (k * ranks + r) * micro_batch_size on.
struct BatchCut {
  int64_t global_batch_size = 1;
  int64_t micro_batch_size = 1;
  int64_t ranks = 1;  // that divide the data among them
};

// Which pack of a global batch stands at which of its places, so that ranks have about as much to
// compute as each other, in each micro-batch and together: packs of like cost go to the ranks of
// one micro-batch, the dearest of them to the rank that has had least. `costs`: of the packs, as
// they come; as many as global_batch_size.
std::vector<int64_t> balance_batch(std::span<const double> costs, const BatchCut& cut);

// The packs with those of each global batch in that order; batches begin at pack `first`. What
// fills no batch stays as it is.
PackList balance_packs(const PackList& packs, int64_t first, std::span<const int32_t> lengths,
                       const BatchCut& cut);

}  // namespace moetron
