#include "moetron/plan/balance.h"

#include <algorithm>

#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

class Balance {
 public:
  Balance(const Placement& placement, const PartCosts& costs)
      : placement_(placement),
        costs_(costs),
        stages_(
            stage_layout(placement, static_cast<int64_t>(costs.layers_before.size()) - 1, {}, "")),
        even_(stages_) {}

  std::vector<int64_t> layers() {
    while (improve()) {
    }
    std::vector<int64_t> counts;
    if (stages_ == even_) return counts;
    for (int chunk = 0; chunk < placement_.num_chunks(); ++chunk)
      for (int rank = 0; rank < placement_.num_ranks(); ++rank)
        counts.push_back(stages_[stage_at(rank, chunk)].count);
    return counts;
  }

 private:
  size_t stage_at(int rank, int chunk) const {
    return static_cast<size_t>(placement_.stage(rank, chunk));
  }

  double time_of(const std::vector<StageLayers>& stages, int rank) const {
    double time = 0;
    for (int chunk = 0; chunk < placement_.num_chunks(); ++chunk)
      time += costs_.of(stages[stage_at(rank, chunk)]);
    return time;
  }

  std::vector<double> times(const std::vector<StageLayers>& stages) const {
    std::vector<double> by_rank(static_cast<size_t>(placement_.num_ranks()));
    for (size_t rank = 0; rank < by_rank.size(); ++rank)
      by_rank[rank] = time_of(stages, static_cast<int>(rank));
    return by_rank;
  }

  // One layer of the busiest rank to the idlest that it helps.
  bool improve() {
    const std::vector<double> before = times(stages_);
    const auto busiest =
        static_cast<int>(std::max_element(before.begin(), before.end()) - before.begin());
    std::vector<int> order(before.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return before[static_cast<size_t>(a)] < before[static_cast<size_t>(b)];
    });
    order.resize(std::min<size_t>(order.size(), 3));  // one of them, or none
    for (const int idle : order)
      for (int from = 0; idle != busiest && from < placement_.num_chunks(); ++from)
        for (int to = 0; to < placement_.num_chunks(); ++to)
          if (move(stage_at(busiest, from), stage_at(idle, to), before)) return true;
    return false;
  }

  // Fewer ranks may have as much to do as the busiest has, or none.
  static bool is_better(const std::vector<double>& now, const std::vector<double>& before) {
    const double most = *std::max_element(before.begin(), before.end());
    const double most_now = *std::max_element(now.begin(), now.end());
    constexpr double kSame = 1e-9;
    if (most_now < (1 - kSame) * most) return true;
    const auto busiest = [&](const std::vector<double>& times) {
      return std::count_if(times.begin(), times.end(),
                           [&](double time) { return time >= (1 - kSame) * most; });
    };
    return most_now <= (1 + kSame) * most && busiest(now) < busiest(before);
  }

  bool move(size_t from, size_t to, const std::vector<double>& before) {
    const int64_t least = stages_[from].has_head ? 0 : 1;
    if (stages_[from].count <= least) return false;
    std::vector<StageLayers> moved = stages_;
    --moved[from].count;
    ++moved[to].count;
    int64_t first = 0;
    for (StageLayers& stage : moved) {
      stage.first = first;
      first += stage.count;
    }
    if (!is_better(times(moved), before)) return false;
    stages_ = std::move(moved);
    return true;
  }

  const Placement& placement_;
  const PartCosts& costs_;
  std::vector<StageLayers> stages_;
  const std::vector<StageLayers> even_;
};

}  // namespace

std::vector<int64_t> balanced_layers(const Placement& placement, const PartCosts& costs) {
  return Balance(placement, costs).layers();
}

}  // namespace moetron
