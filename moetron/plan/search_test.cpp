#include "moetron/plan/search.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <limits>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/config/toml_file.h"
#include "moetron/plan/layout_costs.h"
#include "moetron/plan/plan_test_data.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// A search as `moetron plan` makes it.
struct Planned {
  ParsedCommandLine parsed;
  Hardware hardware;
  RunFacts facts;
  LayoutSpace space;

  explicit Planned(const std::string& command_line)
      : parsed(parse("plan " + command_line)),
        hardware(hardware_of(parsed.options.runtime.hardware)) {
    const Options& options = parsed.options;
    space = layout_space(options, parsed.typed, hardware.gpus_per_node);
    facts = {.world_size = space.world_size};
  }

  RunSpec spec(const Layout& layout, std::optional<int64_t> num_micro_batches = {}) const {
    return resolve_layout(with_layout(parsed.options, parsed.typed, layout), facts,
                          num_micro_batches);
  }
  SearchResult search(const SearchSettings& settings = {}) const {
    return search_layouts(
        spec({}, 1), space, hardware, [this](const Layout& layout) { return spec(layout); },
        settings);
  }
};

constexpr const char* kTiny =
    "--model-family qwen --num-layers 5 --hidden-size 1024 --ffn-hidden-size 4096 "
    "--num-attention-heads 16 --num-query-groups 4 --vocab-size 32000 --num-experts 16 "
    "--moe-router-topk 4 --moe-ffn-hidden-size 512 --seq-length 2048 --global-batch-size 16 "
    "--world-size 4 ";

double time_of(const Proposal& proposal) {
  return proposal.run.prediction.step_time;
}

// Every layout of the space with every division of layers that the search knows.
template <class Visit>
void visit_all(const Planned& planned, const Visit& visit) {
  const LayoutSpace& space = planned.space;
  const RunSpec model = planned.spec({}, 1);
  for (const int64_t pp : space.pp)
    for (const int64_t tp : space.tp)
      for (const int64_t ep : space.ep)
        for (const int64_t tpe : space.tpe)
          for (const int64_t micro_batch : space.micro_batch)
            for (const TokenDispatcher dispatcher : space.dispatchers)
              for (const RecomputeSpec& recompute : space.recompute)
                for (const double fraction : space.host_fractions)
                  for (const LayoutSpace::Schedule& schedule : space.schedules) {
                    Layout layout{tp, tpe, ep, pp, schedule.kind, schedule.num_chunks};
                    layout.micro_batch = micro_batch;
                    layout.dispatcher = dispatcher;
                    layout.recompute = recompute;
                    layout.host_fraction = fraction;
                    RunSpec spec;
                    try {
                      spec = planned.spec(layout);
                    } catch (const ConfigError&) {
                      continue;
                    }
                    visit(layout, spec);
                    const auto parts = LayoutCosts::parts_of(spec);
                    const LayoutCosts costs(spec, planned.hardware, stage_parameters(spec, parts));
                    const Placement placement = placement_of(spec.pipeline.request);
                    layout.layers = balanced_layers(placement, costs.part_costs(layout.kind));
                    if (!layout.layers.empty()) visit(layout, planned.spec(layout));
                  }
}

// Without dualpipev+, each of whose lists takes long to make.
Planned small_space(const std::string& more) {
  Planned planned(kTiny + more);
  std::erase_if(planned.space.schedules, [](const LayoutSpace::Schedule& schedule) {
    return schedule.kind == ScheduleKind::kDualPipeVPlus || schedule.num_chunks > 2;
  });
  return planned;
}

TEST(Search, FindsWhatTryingEverythingFinds) {
  Planned planned = small_space("--micro-batch-size 1 --max-tensor-model-parallel-size 2");
  struct Tried {
    double memory, time;
  };
  std::vector<Tried> all;
  visit_all(planned, [&](const Layout&, const RunSpec& spec) {
    const DryRun run = dry_run(spec, planned.hardware);
    all.push_back({run.most().total(), run.prediction.step_time});
  });
  // Room in which nothing, some and much has to be computed again.
  for (const double room : {80e9, 4e9, 2.5e9}) {
    double best = std::numeric_limits<double>::infinity();
    for (const Tried& tried : all)
      if (tried.memory <= room) best = std::min(best, tried.time);
    planned.hardware.memory = room;
    const SearchResult result = planned.search();
    ASSERT_FALSE(result.proposals.empty()) << room;
    EXPECT_TRUE(result.is_complete) << room;
    EXPECT_DOUBLE_EQ(time_of(result.proposals.front()), best) << room;
  }
}

// What the search leaves out by a bound, and what it counts without a schedule, is right.
TEST(Search, BoundsAndMemoryAreThoseOfTheDryRun) {
  const Planned planned = small_space(
      "--micro-batch-size 1 --max-tensor-model-parallel-size 2 --first-k-dense-replace 1");
  int64_t num_tried = 0;
  visit_all(planned, [&](const Layout&, const RunSpec& spec) {
    const DryRun run = dry_run(spec, planned.hardware);
    const LayoutCosts costs(spec, planned.hardware,
                            stage_parameters(spec, LayoutCosts::parts_of(spec)));
    const std::vector<StageLayers>& stages = spec.pipeline.stages;
    const ScheduleRequest& request = spec.pipeline.request;
    const Placement placement = placement_of(request);
    const std::string name = describe(spec.sizes) + " " + name_of(request.kind) + " recompute " +
                             std::to_string(static_cast<int>(spec.recompute.kind));
    EXPECT_LE(costs.least_makespan(stages, request),
              (1 + 1e-9) * run.prediction.simulation.makespan)
        << name;
    EXPECT_NEAR(costs.update(spec, stages, placement), run.prediction.update_time,
                1e-9 * run.prediction.update_time)
        << name;
    const auto memory = costs.memory(spec, stages, placement, held_counts(request));
    for (size_t rank = 0; rank < memory.size(); ++rank) {
      const RankMemory& exact = run.prediction.memory[rank];
      EXPECT_NEAR(memory[rank].total(), exact.total(), 1e-9 * exact.total()) << name;
      EXPECT_NEAR(memory[rank].host, exact.host, 1e-9 * exact.host) << name;
    }
    ++num_tried;
  });
  EXPECT_GT(num_tried, 1000);
}

TEST(Search, HeldCountsDoNotDependOnTheLengthOfTheList) {
  for (const ScheduleKind kind :
       {ScheduleKind::k1F1B, ScheduleKind::kInterleaved, ScheduleKind::kZbH1, ScheduleKind::kZbV,
        ScheduleKind::kDualPipeV, ScheduleKind::kDualPipeVPlus, ScheduleKind::kGPipe}) {
    for (const int ranks : {1, 2, 4, 8}) {
      const ScheduleRequest request{
          .kind = kind, .num_ranks = ranks, .num_micro_batches = 20 * ranks, .loop_chunks = 3};
      const Schedule schedule = make_schedule(request);
      const auto counts = held_counts(request);
      std::vector<HeldOfChunk> by_chunk;
      for (int chunk = 0; chunk < schedule.placement.num_chunks(); ++chunk)
        by_chunk.push_back({3.0 + chunk, 5.0 - 2 * chunk});
      for (size_t rank = 0; rank < counts.size(); ++rank)
        EXPECT_DOUBLE_EQ(counts[rank].peak(by_chunk), peak_held(schedule.steps[rank], by_chunk))
            << name_of(kind) << " of " << ranks << ", rank " << rank;
    }
  }
}

TEST(Search, KeepsWhatIsTypedAndEveryLimit) {
  const Planned planned(kTiny + std::string("--scheduler zb-v --moe-token-dispatcher-type alltoall "
                                            "--micro-batch-size 1 --mlp-recompute --optimizer adam "
                                            "--max-expert-model-parallel-size 2 "
                                            "--max-pipeline-model-parallel-size 2 "
                                            "--max-tensor-model-parallel-size 1"));
  const SearchResult result = planned.search();
  ASSERT_FALSE(result.proposals.empty());
  for (const Proposal& proposal : result.proposals) {
    const Layout& layout = proposal.layout;
    EXPECT_EQ(layout.kind, ScheduleKind::kZbV);
    EXPECT_EQ(layout.dispatcher, TokenDispatcher::kAllToAll);
    EXPECT_EQ(layout.micro_batch, 1);
    EXPECT_EQ(layout.recompute.kind, Recompute::kExpertProduct);
    EXPECT_EQ(layout.host_fraction, 0);
    EXPECT_LE(layout.ep, 2);
    EXPECT_LE(layout.pp, 2);
    EXPECT_EQ(layout.tp * layout.tpe, 1);
  }
}

// Where one of them alone is asked for, what fits by its counts fits in a dry run as well.
TEST(Search, FindsWhatFitsOfASchedule) {
  const std::string recipe =
      "--config configs/qwen3_30b_a3b_h100x16_pretrain.toml --world-size 16 --micro-batch-size 1 "
      "--max-tensor-model-parallel-size 1 --moe-token-dispatcher-type deepep --scheduler ";
  for (const char* kind : {"gpipe", "dualpipev+"}) {
    const Planned planned(recipe + kind);
    const SearchResult result = planned.search();
    ASSERT_FALSE(result.proposals.empty()) << kind;
    for (const Proposal& proposal : result.proposals) {
      EXPECT_EQ(name_of(proposal.layout.kind), kind);
      EXPECT_TRUE(proposal.run.fits);
    }
    EXPECT_TRUE(std::any_of(result.proposals.begin(), result.proposals.end(),
                            [](const Proposal& proposal) { return proposal.layout.pp > 1; }))
        << kind << ": where it differs from others";
  }
}

TEST(Search, KeepsTypedLayersOfStages) {
  const Planned planned(kTiny + std::string("--hetero-pipeline-stages 3 2"));
  const SearchResult result = planned.search();
  ASSERT_FALSE(result.proposals.empty());
  for (const Proposal& proposal : result.proposals) {
    EXPECT_EQ(proposal.layout.layers, (std::vector<int64_t>{3, 2}));
    EXPECT_EQ(proposal.layout.pp * proposal.layout.num_chunks, 2);
  }
}

TEST(Search, TheResultDoesNotDependOnThreads) {
  const Planned planned(kTiny + std::string(""));
  const SearchResult one = planned.search({.num_threads = 1});
  const SearchResult four = planned.search({.num_threads = 4});
  EXPECT_EQ(one.num_candidates, four.num_candidates);
  EXPECT_EQ(one.num_simulated, four.num_simulated);
  ASSERT_EQ(one.proposals.size(), four.proposals.size());
  for (size_t i = 0; i < one.proposals.size(); ++i)
    EXPECT_EQ(time_of(one.proposals[i]), time_of(four.proposals[i]));
}

TEST(Search, WhereNothingFitsTheClosestIsNamed) {
  Planned planned(kTiny + std::string(""));
  planned.hardware.memory = 1e9;
  const SearchResult result = planned.search();
  EXPECT_TRUE(result.proposals.empty());
  ASSERT_TRUE(result.closest.has_value());
  EXPECT_GT(result.closest->memory, 1e9);
  EXPECT_EQ(result.num_fitting, 0);
}

// A proposal, written down and read again, is the same run; pretrain takes it.
TEST(Search, ProposalsStart) {
  const Planned planned(kTiny + std::string("--first-k-dense-replace 1"));
  const SearchResult result = planned.search();
  ASSERT_EQ(result.proposals.size(), 10U);
  const fs::path file = fs::temp_directory_path() / "moetron_search_test.toml";
  for (const Proposal& proposal : result.proposals) {
    const Options laid = with_layout(planned.parsed.options, planned.parsed.typed, proposal.layout);
    write_file(file, toml_of(laid, Command::kPretrain));
    const Options read =
        parse("pretrain --lr 1e-4 --train-iters 1 --data-path d --config " + file.string()).options;
    EXPECT_NO_THROW(validate(read, Command::kPretrain, planned.space.world_size));
    const RunSpec spec = resolve_run(read, planned.facts);
    EXPECT_EQ(dry_run(spec, planned.hardware).prediction.step_time, time_of(proposal));
  }
  fs::remove(file);
}

// The rows of the guide's table, in the layouts that it used.
TEST(Search, FindsLayoutsAtLeastAsGoodAsTheGuides) {
  struct Row {
    const char* model;
    const char* layout;
  };
  const Row rows[] = {
      {"--config configs/published/qwen3_235b.toml --num-layers 22",
       "--pipeline-model-parallel-size 4 --expert-model-parallel-size 8 --scheduler dualpipev "
       "--virtual-hetero-pipeline-stages 2 3 3 3 2 3 3 3"},
      {"--config configs/published/qwen3_235b.toml --num-layers 30",
       "--pipeline-model-parallel-size 4 --expert-model-parallel-size 16 --scheduler dualpipev "
       "--virtual-hetero-pipeline-stages 3 4 4 4 3 4 4 4"},
      {"--config configs/published/deepseek_v3.toml --first-k-dense-replace 1",
       "--pipeline-model-parallel-size 2 --expert-model-parallel-size 16 --scheduler dualpipev "
       "--virtual-hetero-pipeline-stages 2 2 1 2"}};
  for (const Row& row : rows) {
    const Planned planned(row.model);
    const std::clock_t begin = std::clock();
    const SearchResult result = planned.search();
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    const ParsedCommandLine guide = parse(std::string("plan ") + row.model + " " + row.layout);
    const DryRun of_guide = dry_run(resolve_layout(guide.options, planned.facts), planned.hardware);
    ASSERT_FALSE(result.proposals.empty()) << row.model;
    EXPECT_LE(time_of(result.proposals.front()), of_guide.prediction.step_time) << row.model;
    EXPECT_GE(result.num_candidates, 100000) << row.model;
    EXPECT_EQ(result.proposals.size(), 10U);
    std::printf(
        "%s: %lld candidates, %lld fit, %lld simulated in %.2f s of a core%s; %.2f s a step, guide "
        "%.2f\n",
        row.model, static_cast<long long>(result.num_candidates),
        static_cast<long long>(result.num_fitting), static_cast<long long>(result.num_simulated),
        seconds, result.is_complete ? "" : " (not complete)", time_of(result.proposals.front()),
        of_guide.prediction.step_time);
  }
}

}  // namespace
}  // namespace moetron
