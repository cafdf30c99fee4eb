#include "moetron/data/packing.h"

#include <algorithm>
#include <numeric>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// The room left in each pack, in a tree of the most room of its halves.
class RoomTree {
 public:
  explicit RoomTree(int64_t num_packs) {
    while (width_ < num_packs) width_ *= 2;
    most_.assign(static_cast<size_t>(2 * width_), 0);
  }

  // The first pack with at least so much room; -1: none.
  int64_t first_with(int64_t needed) const {
    if (at(1) < needed) return -1;
    int64_t node = 1;
    while (node < width_) node = at(2 * node) >= needed ? 2 * node : 2 * node + 1;
    return node - width_;
  }
  int64_t room(int64_t pack) const { return at(width_ + pack); }
  void set_room(int64_t pack, int64_t room) {
    int64_t node = width_ + pack;
    most_[static_cast<size_t>(node)] = room;
    for (node /= 2; node >= 1; node /= 2)
      most_[static_cast<size_t>(node)] = std::max(at(2 * node), at(2 * node + 1));
  }

 private:
  int64_t at(int64_t node) const { return most_[static_cast<size_t>(node)]; }

  int64_t width_ = 1;
  std::vector<int64_t> most_;
};

}  // namespace

std::span<const int64_t> PackList::operator[](int64_t pack) const {
  MT_CHECK(pack >= 0 && pack < size(), "pack ", pack, " of ", size());
  const auto place = static_cast<size_t>(pack);
  const int64_t begin = place == 0 ? 0 : ends_[place - 1];
  return std::span(conversations_)
      .subspan(static_cast<size_t>(begin), static_cast<size_t>(ends_[place] - begin));
}

void PackList::add(std::span<const int64_t> conversations) {
  conversations_.insert(conversations_.end(), conversations.begin(), conversations.end());
  ends_.push_back(static_cast<int64_t>(conversations_.size()));
}

PackList PackList::first(int64_t count) const {
  PackList some;
  for (int64_t i = 0; i < count; ++i)
    some.add(i < size() ? (*this)[i] : std::span<const int64_t>());
  return some;
}

PackList pack_first_fit_decreasing(std::span<const int64_t> conversations,
                                   std::span<const int32_t> lengths, int64_t capacity) {
  const auto length = [&](int64_t one) { return lengths[static_cast<size_t>(one)]; };
  std::vector<int64_t> sorted(conversations.begin(), conversations.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](int64_t a, int64_t b) { return length(a) > length(b); });
  RoomTree rooms(static_cast<int64_t>(sorted.size()));
  std::vector<std::vector<int64_t>> packs;
  for (const int64_t one : sorted) {
    MT_CHECK(length(one) <= capacity, "a conversation of ", length(one), " tokens for packs of ",
             capacity);
    int64_t pack = rooms.first_with(length(one));
    if (pack < 0) {
      pack = static_cast<int64_t>(packs.size());
      packs.emplace_back();
      rooms.set_room(pack, capacity);
    }
    packs[static_cast<size_t>(pack)].push_back(one);
    rooms.set_room(pack, rooms.room(pack) - length(one));
  }
  PackList list;
  for (const auto& pack : packs) list.add(pack);
  return list;
}

double pack_cost(std::span<const int64_t> conversations, std::span<const int32_t> lengths) {
  // Tokens that a token of a usual layer could attend to for what its products cost: 12 times the
  // hidden width, of half of them.
  constexpr double kLinear = 12 * 2048;
  double cost = 0;
  for (const int64_t one : conversations) {
    const double length = lengths[static_cast<size_t>(one)];
    cost += length * (length + kLinear);
  }
  return cost;
}

std::vector<int64_t> balance_batch(std::span<const double> costs, const BatchCut& cut) {
  const auto size = static_cast<int64_t>(costs.size());
  const int64_t joint = cut.micro_batch_size * cut.ranks;  // packs that ranks compute at a time
  MT_CHECK(size == cut.global_batch_size && size % joint == 0, size, " packs for a batch of ",
           cut.global_batch_size, " that ranks take ", joint, " of at a time");
  const auto cost = [&](int64_t pack) { return costs[static_cast<size_t>(pack)]; };
  std::vector<int64_t> sorted(costs.size());
  std::iota(sorted.begin(), sorted.end(), 0);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](int64_t a, int64_t b) { return cost(a) > cost(b); });
  std::vector<int64_t> order(costs.size());
  std::vector<double> had(static_cast<size_t>(cut.ranks), 0);
  for (int64_t begin = 0; begin < size; begin += joint) {
    std::vector<int64_t> taken(static_cast<size_t>(cut.ranks), 0);
    for (int64_t i = begin; i < begin + joint; ++i) {
      size_t least = 0;
      bool is_known = false;
      for (size_t rank = 0; rank < had.size(); ++rank) {
        if (taken[rank] == cut.micro_batch_size || (is_known && had[rank] >= had[least])) continue;
        least = rank;
        is_known = true;
      }
      const int64_t pack = sorted[static_cast<size_t>(i)];
      const int64_t place =
          begin + static_cast<int64_t>(least) * cut.micro_batch_size + taken[least]++;
      order[static_cast<size_t>(place)] = pack;
      had[least] += cost(pack);
    }
  }
  return order;
}

PackList balance_packs(const PackList& packs, int64_t first, std::span<const int32_t> lengths,
                       const BatchCut& cut) {
  PackList balanced;
  int64_t next = 0;
  const auto keep_until = [&](int64_t end) {
    for (; next < end; ++next) balanced.add(packs[next]);
  };
  keep_until(std::min(first, packs.size()));
  while (next + cut.global_batch_size <= packs.size()) {
    std::vector<double> costs;
    for (int64_t i = 0; i < cut.global_batch_size; ++i)
      costs.push_back(pack_cost(packs[next + i], lengths));
    for (const int64_t place : balance_batch(costs, cut)) balanced.add(packs[next + place]);
    next += cut.global_batch_size;
  }
  keep_until(packs.size());
  return balanced;
}

}  // namespace moetron
