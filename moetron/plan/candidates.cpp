#include "moetron/plan/candidates.h"

#include <algorithm>
#include <functional>

#include "moetron/base/mistakes.h"
#include "moetron/plan/dry_run.h"
#include "moetron/plan/layout_costs.h"
#include "moetron/run/division.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

// The run on the ranks of a mesh; empty where they do not divide it.
std::optional<RunSpec> spec_on(const RunSpec& model, const Layout& mesh, int64_t world_size) {
  RunSpec spec = model;
  Mistakes mistakes;
  const bool is_mesh = mistakes.collect(
      [&] { spec.sizes = parallel_sizes(world_size, mesh.tp, mesh.pp, mesh.ep, mesh.tpe); });
  if (!is_mesh) return {};
  const bool replicates = model.latent_attention.replicate_down;
  check_division(divided_widths(model.model, replicates), spec.sizes, mistakes);
  if (model.fp8 && mistakes.count() == 0)
    check_fp8_division(model.model, spec.sizes, replicates, mistakes);
  return mistakes.count() == 0 ? std::optional(std::move(spec)) : std::nullopt;
}

// One of them serves where nothing travels, or where there are no experts.
template <class T>
std::vector<T> first_of(const std::vector<T>& all, bool alone) {
  return alone ? std::vector<T>{all.front()} : all;
}

std::vector<RecomputeSpec> recompute_kinds(const RunSpec& spec, const LayoutSpace& space) {
  std::vector<RecomputeSpec> kinds = space.recompute;
  if (kinds.size() > 1 && spec.model.num_moe_layers() == 0) {
    std::erase_if(kinds, [](const RecomputeSpec& recompute) {
      return recompute.kind == Recompute::kExpertProduct || recompute.kind == Recompute::kMoeLayer;
    });
  }
  return kinds;
}

bool has_blocks(ScheduleKind kind) {
  return std::any_of(std::begin(kSchedules), std::end(kSchedules), [&](const auto& schedule) {
    return schedule.kind == kind && schedule.has_blocks;
  });
}

// The name of the same dispatcher under a schedule of blocks.
TokenDispatcher overlapped(TokenDispatcher dispatcher) {
  switch (dispatcher) {
    case TokenDispatcher::kAllGatherFused:
      return TokenDispatcher::kOverlapAllGatherFused;
    case TokenDispatcher::kAllToAll:
      return TokenDispatcher::kOverlapAllToAll;
    case TokenDispatcher::kDeepep:
      return TokenDispatcher::kOverlapDeepep;
    default:
      return dispatcher;
  }
}

bool can_run(const ScheduleRequest& request) {
  try {
    check_schedule(request);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

// All of one mesh.
class MeshSearch {
 public:
  using Counts = std::function<const std::vector<HeldCounts>&(const ScheduleRequest&)>;

  MeshSearch(RunSpec spec, const LayoutSpace& space, const Hardware& hardware, Counts counts)
      : spec_(std::move(spec)),
        space_(space),
        hardware_(hardware),
        counts_(std::move(counts)),
        parameters_(stage_parameters(spec_, LayoutCosts::parts_of(spec_))),
        recompute_(recompute_kinds(spec_, space)) {}

  MeshCandidates run(const Layout& mesh) {
    Layout layout = mesh;
    const bool nothing_travels = spec_.sizes.ep * spec_.sizes.tpe == 1;
    for (const int64_t micro_batch : space_.micro_batch) {
      if (!set_batch(micro_batch)) continue;
      layout.micro_batch = micro_batch;
      for (const TokenDispatcher dispatcher : first_of(space_.dispatchers, nothing_travels)) {
        spec_.experts.dispatcher = layout.dispatcher = dispatcher;
        spec_.experts.scheme = scheme_of(dispatcher);
        add_dispatcher(layout);
      }
    }
    return std::move(found_);
  }

 private:
  bool set_batch(int64_t micro_batch) {
    const int64_t together = micro_batch * spec_.sizes.dp;
    if (space_.global_batch_size % together != 0) return false;
    spec_.batch.micro_batch_size = micro_batch;
    spec_.batch.global_batch_size = space_.global_batch_size;
    spec_.batch.num_micro_batches = space_.global_batch_size / together;
    return true;
  }

  void add_dispatcher(Layout layout) {
    std::vector<LayoutCosts> costs;  // by recompute
    for (const RecomputeSpec& recompute : recompute_) {
      spec_.recompute = recompute;
      costs.emplace_back(spec_, hardware_, parameters_);
    }
    for (const LayoutSpace::Schedule& schedule : space_.schedules) {
      layout.kind = schedule.kind;
      layout.num_chunks = schedule.num_chunks;
      const ScheduleRequest request = layout.request(spec_.batch.num_micro_batches);
      if (!is_tried(layout) || !can_run(request)) continue;
      if (space_.layers) {
        layout.layers = *space_.layers;
        const auto asked = [&](const LayoutCosts&) { return std::optional(*space_.layers); };
        add_division(layout, request, costs, asked);
        continue;
      }
      const Placement placement = placement_of(request);
      add_division(layout, request, costs,
                   [](const LayoutCosts&) { return std::optional(std::vector<int64_t>{}); });
      add_division(layout, request, costs,
                   [&](const LayoutCosts& of) -> std::optional<std::vector<int64_t>> {
                     auto layers = balanced_layers(placement, of.part_costs(schedule.kind));
                     if (layers.empty()) return {};  // even
                     return layers;
                   });
    }
  }

  // Whether there are layers for its stages. Of one pipeline rank blocks are the only difference
  // that a schedule makes.
  bool is_tried(const Layout& layout) const {
    const int64_t num_stages = layout.pp * layout.num_chunks;
    const int64_t num_layers = spec_.model.num_layers;
    if (space_.layers_per_stage && num_stages * *space_.layers_per_stage != num_layers)
      return false;
    if (space_.layers) {
      int64_t sum = 0;
      for (const int64_t count : *space_.layers) sum += count;
      return static_cast<int64_t>(space_.layers->size()) == num_stages && sum == num_layers;
    }
    const bool is_choice = space_.schedules.size() > 1;
    const bool is_other =
        layout.kind != ScheduleKind::k1F1B && layout.kind != ScheduleKind::kDualPipeV;
    return num_stages <= num_layers && !(is_choice && layout.pp == 1 && is_other);
  }

  // `layers_of`: how the layers are divided, by the costs of a kind of recompute; empty: not so.
  template <class LayersOf>
  void add_division(Layout layout, const ScheduleRequest& request,
                    const std::vector<LayoutCosts>& costs, const LayersOf& layers_of) {
    const Placement placement = placement_of(request);
    if (space_.dispatchers.size() > 1 && has_blocks(layout.kind))
      layout.dispatcher = overlapped(layout.dispatcher);
    std::optional<Candidate> best;
    for (size_t i = 0; i < costs.size(); ++i) {
      const auto layers = layers_of(costs[i]);
      if (!layers) continue;
      layout.layers = *layers;
      layout.recompute = spec_.recompute = recompute_[i];
      const std::vector<StageLayers> stages =
          stage_layout(placement, spec_.model.num_layers, layout.layers, "layers");
      const double makespan = costs[i].least_makespan(stages, request);
      for (const double fraction : space_.host_fractions) {
        layout.host_fraction = spec_.optimizer.host_fraction = fraction;
        spec_.optimizer.is_hybrid = fraction > 0;
        const auto memory = costs[i].memory(spec_, stages, placement, counts_(request));
        Candidate candidate{layout, makespan + costs[i].update(spec_, stages, placement)};
        for (const RankMemory& rank : memory) {
          candidate.memory = std::max(candidate.memory, rank.total());
          candidate.host = std::max(candidate.host, rank.host);
        }
        note(candidate, fits(memory, hardware_), best);
      }
    }
    if (best) found_.fitting.push_back(std::move(*best));
  }

  void note(const Candidate& candidate, bool is_fitting, std::optional<Candidate>& best) {
    ++found_.num_candidates;
    const auto is_faster = [&](const std::optional<Candidate>& other) {
      return !other || candidate.least_time < other->least_time;
    };
    if (!found_.closest || candidate.memory < found_.closest->memory) found_.closest = candidate;
    if (!is_fitting) {
      constexpr double kNear = 1.25;  // what is further off teaches nothing
      const bool is_near = candidate.memory <= kNear * hardware_.memory &&
                           candidate.host <= kNear * host_share(hardware_);
      if (is_near && is_faster(found_.fastest_miss)) found_.fastest_miss = candidate;
      return;
    }
    ++found_.num_fitting;
    if (is_faster(best)) best = candidate;
  }

  RunSpec spec_;
  const LayoutSpace& space_;
  const Hardware& hardware_;
  Counts counts_;
  std::vector<StageParameters> parameters_;
  std::vector<RecomputeSpec> recompute_;
  MeshCandidates found_;
};

}  // namespace

MeshCandidates CandidateMaker::candidates(const Layout& mesh) {
  std::optional<RunSpec> spec = spec_on(model_, mesh, space_.world_size);
  if (!spec) return {};
  return MeshSearch(std::move(*spec), space_, hardware_,
                    [this](const ScheduleRequest& request) -> const std::vector<HeldCounts>& {
                      return counts(request);
                    })
      .run(mesh);
}

const std::vector<HeldCounts>& CandidateMaker::counts(const ScheduleRequest& request) {
  std::vector<HeldCounts>& known =
      counts_[{request.kind, request.num_ranks, request.num_micro_batches, request.loop_chunks}];
  if (known.empty()) known = held_counts(request);
  return known;
}

}  // namespace moetron
