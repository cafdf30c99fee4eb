#include "moetron/plan/search.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>
#include <tuple>

#include "moetron/base/error.h"
#include "moetron/base/parallel_for.h"

namespace moetron {
namespace {

// Does work(i) for each i below `count`, on several threads, each by what make_work() gave it.
template <class MakeWork>
void for_each_index(size_t count, size_t num_threads, const MakeWork& make_work) {
  std::atomic<size_t> next = 0;
  parallel_for(static_cast<int>(num_threads), num_threads, [&](uint64_t) {
    auto work = make_work();
    for (size_t i = next++; i < count; i = next++) work(i);
  });
}

std::vector<Layout> meshes(const LayoutSpace& space) {
  std::vector<Layout> all;
  for (const int64_t pp : space.pp)
    for (const int64_t tp : space.tp)
      for (const int64_t ep : space.ep)
        for (const int64_t tpe : space.tpe)
          all.push_back({.tp = tp, .tpe = tpe, .ep = ep, .pp = pp});
  return all;
}

// Layouts of the same key differ in little: the best of them stands for all.
using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, ScheduleKind, int>;
Key key_of(const Layout& layout) {
  return {layout.tp, layout.tpe, layout.ep, layout.pp, layout.kind, layout.num_chunks};
}

class Search {
 public:
  Search(const LayoutSpace& space, const Hardware& hardware, const ResolveLayout& resolve,
         const SearchSettings& settings)
      : space_(space), hardware_(hardware), resolve_(resolve), settings_(settings) {}

  void bound(const RunSpec& model) {
    const std::vector<Layout> all = meshes(space_);
    std::vector<MeshCandidates> by_mesh(all.size());
    for_each_index(all.size(), settings_.num_threads, [&] {
      return [&, maker = CandidateMaker(model, space_, hardware_)](size_t i) mutable {
        by_mesh[i] = maker.candidates(all[i]);
      };
    });
    for (MeshCandidates& mesh : by_mesh) {
      result_.num_candidates += mesh.num_candidates;
      result_.num_fitting += mesh.num_fitting;
      std::move(mesh.fitting.begin(), mesh.fitting.end(), std::back_inserter(candidates_));
      if (mesh.fastest_miss) result_.misses.push_back(*mesh.fastest_miss);
      const bool is_closest =
          mesh.closest && (!result_.closest || mesh.closest->memory < result_.closest->memory);
      if (is_closest) result_.closest = mesh.closest;
    }
    const auto by_time = [](const Candidate& a, const Candidate& b) {
      return a.least_time < b.least_time;
    };
    std::stable_sort(candidates_.begin(), candidates_.end(), by_time);
    std::stable_sort(result_.misses.begin(), result_.misses.end(), by_time);
  }

  // Simulates in the order of the bounds, some at once, until none can be among the best any more.
  void simulate() {
    constexpr size_t kAtOnce = 16;
    auto next = candidates_.begin();
    while (next != candidates_.end() && next->least_time < worst_needed() &&
           steps_ < settings_.max_steps) {
      std::vector<const Candidate*> wave;
      for (; next != candidates_.end() && wave.size() < kAtOnce; ++next)
        if (next->least_time < worst_needed(key_of(next->layout))) wave.push_back(&*next);
      for (const Candidate* candidate : wave) steps_ += steps_of(*candidate);
      std::vector<std::optional<Proposal>> proposals(wave.size());
      for_each_index(wave.size(), settings_.num_threads,
                     [&] { return [&](size_t i) { proposals[i] = dry_run_of(wave[i]->layout); }; });
      result_.num_simulated += static_cast<int64_t>(wave.size());
      for (std::optional<Proposal>& proposal : proposals)
        if (proposal) keep(std::move(*proposal));
    }
    result_.is_complete = next == candidates_.end() || next->least_time >= worst_needed();
  }

  SearchResult take() {
    std::vector<Proposal>& proposals = result_.proposals;
    for (auto& [key, proposal] : best_) proposals.push_back(std::move(proposal));
    std::stable_sort(proposals.begin(), proposals.end(),
                     [](const Proposal& a, const Proposal& b) { return time_of(a) < time_of(b); });
    if (proposals.size() > settings_.num_proposals)
      proposals.erase(proposals.begin() + static_cast<std::ptrdiff_t>(settings_.num_proposals),
                      proposals.end());
    if (!proposals.empty()) {
      std::erase_if(result_.misses, [&](const Candidate& miss) {
        return miss.least_time >= time_of(proposals.front());
      });
    }
    if (result_.misses.size() > settings_.num_misses) result_.misses.resize(settings_.num_misses);
    return std::move(result_);
  }

 private:
  static double time_of(const Proposal& proposal) { return proposal.run.prediction.step_time; }

  // Of all ranks, which is what a simulation takes time for.
  double steps_of(const Candidate& candidate) const {
    const Layout& layout = candidate.layout;
    const double micro_batches =
        static_cast<double>(space_.global_batch_size) * static_cast<double>(layout.pp * layout.tp) /
        (static_cast<double>(space_.world_size) * static_cast<double>(layout.micro_batch));
    const double steps = 2 * micro_batches * static_cast<double>(layout.pp * layout.num_chunks);
    constexpr double kListSearch = 1e6;
    return steps + (layout.kind == ScheduleKind::kDualPipeVPlus ? kListSearch : 0);
  }

  std::optional<Proposal> dry_run_of(const Layout& layout) const {
    try {
      Proposal proposal{layout, resolve_(layout), {}};
      proposal.run = dry_run(proposal.spec, hardware_);
      if (!fits(proposal.run.prediction.memory, hardware_)) return {};
      proposal.run.prediction.simulation.steps = {};  // long, and needed no more
      return proposal;
    } catch (const ConfigError&) {
      return {};  // a start refuses it
    }
  }

  void keep(Proposal proposal) {
    const auto [known, is_new] = best_.try_emplace(key_of(proposal.layout), proposal);
    if (!is_new && time_of(proposal) < time_of(known->second)) known->second = std::move(proposal);
  }

  // Seconds from which on a layout is not among the best.
  double worst_needed() const {
    if (best_.size() < settings_.num_proposals) return std::numeric_limits<double>::infinity();
    std::vector<double> times;
    times.reserve(best_.size());
    for (const auto& [key, proposal] : best_) times.push_back(time_of(proposal));
    const auto last = times.begin() + static_cast<std::ptrdiff_t>(settings_.num_proposals) - 1;
    std::nth_element(times.begin(), last, times.end());
    return *last;
  }
  double worst_needed(const Key& key) const {
    const auto known = best_.find(key);
    return known == best_.end() ? worst_needed() : std::min(worst_needed(), time_of(known->second));
  }

  const LayoutSpace& space_;
  const Hardware& hardware_;
  const ResolveLayout& resolve_;
  const SearchSettings& settings_;
  std::vector<Candidate> candidates_;
  double steps_ = 0;  // simulated
  std::map<Key, Proposal> best_;
  SearchResult result_;
};

}  // namespace

SearchResult search_layouts(const RunSpec& model, const LayoutSpace& space,
                            const Hardware& hardware, const ResolveLayout& resolve,
                            const SearchSettings& settings) {
  Search search(space, hardware, resolve, settings);
  search.bound(model);
  search.simulate();
  return search.take();
}

}  // namespace moetron
